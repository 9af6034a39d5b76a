"""Users, organisations, sessions and tokens as the console shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cortex_console.domain.formatting import NOTHING, time_cells
from cortex_console.domain.identity import Me
from cortex_console.domain.shapes import Row, text, whole
from cortex_console.domain.states import Tone
from cortex_contracts.rights import Right

ROLES = {"viewer": "Viewer", "operator": "Operator", "admin": "Administrator"}
ROLE_MEANS = {
    "viewer": "sees models, health, usage and events, has own API keys",
    "operator": "also starts, stops and tests models and reads logs",
    "admin": "also changes models, keys, users and settings",
}
_RANKS = tuple(ROLE_MEANS)
_OWN = "That is you. Another administrator can do it."


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in."""

    id: str
    username: str
    display_name: str
    role: str
    org_id: str
    disabled: bool
    one_time: bool
    """Whether they have not chosen their own password yet."""
    last_login_at: str
    created_at: str
    version: int

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/users`."""
        return cls(
            id=text(answer.get("id")),
            username=text(answer.get("username")),
            display_name=text(answer.get("display_name")),
            role=text(answer.get("role")),
            org_id=text(answer.get("org_id")),
            disabled=bool(answer.get("disabled")),
            one_time=bool(answer.get("must_change_password")),
            last_login_at=text(answer.get("last_login_at")),
            created_at=text(answer.get("created_at")),
            version=whole(answer.get("version")),
        )

    @property
    def state(self) -> tuple[str, Tone]:
        """In a word, and how it looks."""
        if self.disabled:
            return "disabled", Tone.BAD
        if self.one_time:
            return "one-time password", Tone.WARN
        return "active", Tone.GOOD


@dataclass(frozen=True, slots=True)
class Organisation:
    """What users and keys belong to."""

    id: str
    name: str
    users: int
    created_at: str
    version: int

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/orgs`."""
        return cls(
            id=text(answer.get("id")),
            name=text(answer.get("name")),
            users=whole(answer.get("users")),
            created_at=text(answer.get("created_at")),
            version=whole(answer.get("version")),
        )


def role_text(role: str) -> str:
    """What a role may do, with what the lower ones may."""
    if role not in _RANKS:
        return ""
    return "This role " + "; ".join(ROLE_MEANS[one] for one in _RANKS[: _RANKS.index(role) + 1]) + "."


def why_not_touch(user: User, me: Me) -> str | None:
    """Why somebody may not disable, demote or delete this user; None when they may."""
    reason = me.why_not(Right.USERS_WRITE)
    if reason is None and user.id == me.user_id:
        return _OWN
    return reason


def user_row(user: User, organisations: Mapping[str, str], now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    state, tone = user.state
    return {
        "id": user.id,
        "row_name": user.username,
        "user": user.username,
        "user_note": user.display_name,
        "role": ROLES.get(user.role, user.role),
        "role_kind": user.role,
        "organisation": organisations.get(user.org_id, NOTHING) if user.org_id else NOTHING,
        "state": state,
        "state_tone": tone.value,
        **_times("signed_in", user.last_login_at, now, "never"),
        **time_cells("created", user.created_at, now),
    }


def organisation_row(organisation: Organisation, now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    number = organisation.users
    return {
        "id": organisation.id,
        "row_name": organisation.name,
        "name": organisation.name,
        "users": "no users" if number == 0 else f"{number} user{'s' * (number != 1)}",
        "users_href": f"/users?org={organisation.id}",
        "users_sort": number,
        **time_cells("created", organisation.created_at, now),
    }


def session_row(answer: Row, now: datetime) -> dict[str, object]:
    """One of one's own sessions."""
    current = bool(answer.get("current"))
    return {
        "id": text(answer.get("id")),
        "row_name": browser_name(text(answer.get("user_agent"))),
        "browser": browser_name(text(answer.get("user_agent"))),
        "browser_note": "this one" if current else "",
        "address": text(answer.get("address"), NOTHING),
        "current": current,
        **time_cells("seen", answer.get("last_seen_at"), now),
        **time_cells("begun", answer.get("created_at"), now),
    }


def token_row(answer: Row, now: datetime) -> dict[str, object]:
    """One of one's own tokens."""
    expires = answer.get("expires_at")
    return {
        "id": text(answer.get("id")),
        "row_name": text(answer.get("name")),
        "token": text(answer.get("name")),
        "token_note": f"{text(answer.get('prefix'))}…",
        "role": ROLES.get(text(answer.get("role")), text(answer.get("role"))),
        "expires": text(expires)[:10] if expires else "never",
        **_times("used", answer.get("last_used_at"), now, "never"),
        **time_cells("made", answer.get("created_at"), now),
    }


def browser_name(agent: str) -> str:
    """What a User-Agent is, roughly: the browser and the system."""
    browsers = (
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for mark, name in browsers if mark in agent), "")
    system = next((name for mark, name in systems if mark in agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or agent.partition("/")[0] or "unknown program"


def _times(name: str, value: object, now: datetime, never: str) -> dict[str, object]:
    cells = time_cells(name, value, now)
    return cells if value else cells | {name: never}
