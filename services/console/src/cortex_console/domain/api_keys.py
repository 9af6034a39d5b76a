"""API keys as the console shows them, and what a form makes of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self

from cortex_console.domain.formatting import NOTHING, count_text, moment, time_cells
from cortex_console.domain.shapes import Row, text, whole
from cortex_console.domain.states import Tone

STATES = {"active": "Active", "disabled": "Disabled", "expired": "Expired", "revoked": "Revoked"}
SCOPES = {
    "*": "Everything but pass-through",
    "chat": "Chat",
    "completions": "Completions",
    "embeddings": "Embeddings",
    "rerank": "Rerank",
    "responses": "Responses",
    "messages": "Messages",
    "upstream": "Pass-through to engines",
}
PRIORITIES = {"interactive": "Interactive", "batch": "Batch: waits when a model is busy"}
OVERLAPS = {0: "At once", 3_600: "In an hour", 86_400: "In a day", 604_800: "In a week", 2_592_000: "In 30 days"}
LIMITS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "max_concurrent_streams": "streams",
    "tokens_per_month": "tokens/month",
}
USAGE_DAYS = 30
_LISTS = ("models", "scopes", "ip_allowlist")
_TONES = {"active": Tone.GOOD, "disabled": Tone.WARN, "expired": Tone.NEUTRAL, "revoked": Tone.NEUTRAL}
_SOON = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without what it is made of."""

    id: str
    version: int
    name: str
    prefix: str
    state: str
    user_id: str
    org_id: str
    fields: Row
    """All else, by the registry's names."""

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/keys`."""
        return cls(
            id=text(answer.get("id")),
            version=whole(answer.get("version")),
            name=text(answer.get("name")),
            prefix=text(answer.get("prefix")),
            state=text(answer.get("state")),
            user_id=text(answer.get("user_id")),
            org_id=text(answer.get("org_id")),
            fields=answer,
        )

    @property
    def works(self) -> bool:
        """Whether it opens anything."""
        return self.state == "active"

    def several(self, name: str) -> list[str]:
        """A field that is a list."""
        return [str(one) for one in self.fields.get(name) or ()]


@dataclass(frozen=True, slots=True)
class Names:
    """Of what keys belong to, by id."""

    users: Mapping[str, str]
    organisations: Mapping[str, str]


def key_row(key: ApiKey, names: Names, tokens: Mapping[str, int], now: datetime) -> dict[str, object]:
    """A row of the table."""
    owner = names.users.get(key.user_id, "")
    organisation = names.organisations.get(key.org_id, "")
    end = expiry_text(key.fields.get("expires_at"), now)
    warning = ends_soon(key, now)
    return {
        "id": key.id,
        "row_name": key.name,
        "name": key.name,
        "name_note": f"{key.prefix}…",
        "state": key.state,
        "state_tone": (Tone.WARN if warning and key.works else _TONES.get(key.state, Tone.NEUTRAL)).value,
        "owner": owner or organisation or NOTHING,
        "owner_note": organisation if owner else "",
        "access": access_text(key),
        "access_note": limits_text(key),
        "expires": end,
        "expires_sort": text(key.fields.get("expires_at"), "9999"),
        **time_cells("used", key.fields.get("last_used_at"), now),
        "tokens": count_text(tokens.get(key.id)) if key.id in tokens else NOTHING,
        "tokens_sort": tokens.get(key.id, 0),
    }


def access_text(key: ApiKey) -> str:
    """What it opens: models and scopes."""
    models, scopes = key.several("models"), key.several("scopes")
    which = "All models" if not models else ", ".join(models[:2]) + (f" and {len(models) - 2} more" * (len(models) > 2))
    if scopes == ["*"]:
        return which
    return f"{which}: {', '.join('all' if scope == '*' else scope for scope in scopes)}"


def limits_text(key: ApiKey) -> str:
    """`60 requests/min · 1.0M tokens/month · from 2 networks`."""
    parts = [f"{count_text(whole(value))} {unit}" for name, unit in LIMITS.items() if (value := key.fields.get(name))]
    networks = len(key.several("ip_allowlist"))
    if networks:
        parts.append(f"from {networks} network{'s' * (networks > 1)}")
    if key.fields.get("priority") == "batch":
        parts.append("batch")
    return " · ".join(parts)


def expiry_text(value: object, now: datetime) -> str:
    """When it ends, or ended."""
    at = moment(value)
    if at is None:
        return "never"
    left = at - now
    if timedelta(0) < left < timedelta(days=1):
        return f"in {max(1, int(left.total_seconds() // 3600))} h"
    return f"{at:%Y-%m-%d}"


def ends_soon(key: ApiKey, now: datetime) -> bool:
    """Whether somebody should rotate it; a key that was made for a few days is not worth a warning."""
    ends, made = moment(key.fields.get("expires_at")), moment(key.fields.get("created_at"))
    return ends is not None and ends - now < _SOON and (made is None or ends - made > _SOON)


def body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the registry is asked for; a field that is left open takes the registry's default."""
    body: dict[str, Any] = {"name": values["name"], "models": list(values.get("models") or ())}
    body["scopes"] = list(values.get("scopes") or ("*",))
    for name in LIMITS:
        number = values.get(name)
        body[name] = int(number) if number not in (None, "") else None
    body["ip_allowlist"] = networks_of(values.get("ip_allowlist") or "")
    body["expires_at"] = end_of_day(values.get("expires_at") or "")
    body["priority"] = values.get("priority") or "interactive"
    for name in ("user_id", "org_id"):
        if name in values:
            body[name] = values[name] or None
    return body


def changes_of(key: ApiKey, values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the key, so that an unchanged end of a day is not moved."""
    body = body_of(values)
    if (values.get("expires_at") or "") == day_of(key.fields.get("expires_at")):
        body.pop("expires_at")
    return {name: value for name, value in body.items() if value != _present(key, name)}


def own_body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `body_of`, for oneself: what is left open is left out, so that it gets what the settings allow."""
    body = body_of(values)
    if body["scopes"] == ["*"]:
        body.pop("scopes")
    return {name: value for name, value in body.items() if value is not None and name not in ("user_id", "org_id")}


def networks_of(given: str) -> list[str]:
    """Addresses and networks, separated by lines, blanks or commas."""
    return given.replace(",", " ").split()


def end_of_day(given: str) -> str | None:
    """The last second of a day of UTC; what is no day is passed on for the registry to refuse."""
    if not given:
        return None
    try:
        day = date.fromisoformat(given)
    except ValueError:
        return given
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


def day_of(value: object) -> str:
    """The day of an end, for a form."""
    at = moment(value)
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d}"


def revocation(key: ApiKey, now: datetime) -> Sequence[str]:
    """What revoking it does."""
    used = moment(key.fields.get("last_used_at"))
    lately = used is not None and now - used < timedelta(hours=1)
    told = ["Programs that use it are refused within moments. This cannot be undone."]
    if lately:
        told.insert(0, "It was used within the last hour: something depends on it.")
    return [*told, "Its usage stays. To replace it without a gap, rotate it instead."]


def _present(key: ApiKey, name: str) -> object:
    return key.several(name) if name in _LISTS else key.fields.get(name)
