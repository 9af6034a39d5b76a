"""The audit log as people read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_console.domain.formatting import NOTHING, time_cells
from cortex_console.domain.shapes import Row, row, text
from cortex_console.domain.states import Tone

KINDS = {
    "model": "Models",
    "key": "API keys",
    "user": "Users",
    "org": "Organisations",
    "auth": "Signing in",
    "token": "Personal tokens",
    "recipe": "Recipes",
    "upstream": "Upstreams",
    "webhook": "Webhooks",
    "deployment": "Backups",
}
PERIODS = {"1": "Last 24 hours", "7": "Last 7 days", "30": "Last 30 days"}
_BAD = ("delete", "revoke", "login_failed", "disable", "restore")
_GOOD = ("create", "bootstrap")
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a change."""

    name: str
    before: str
    after: str


def audit_query(wanted: Mapping[str, str], now: datetime) -> dict[str, str | None]:
    """The registry's query for what the filters ask: `actor`, `kind`, `subject`, `days`."""
    kind, days, subject = wanted.get("kind", ""), wanted.get("days", ""), wanted.get("subject", "").strip()
    return {
        "actor": wanted.get("actor", "").strip() or None,
        "action": f"{kind}.*" if kind in KINDS else None,
        "subject": (subject if "/" in subject else f"{subject}*") if subject else None,
        "since": (now - timedelta(days=int(days))).isoformat() if days in PERIODS else None,
    }


def audit_row(entry: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    action = text(entry.get("action"))
    return {
        "id": text(entry.get("id")),
        "row_name": f"{action} {text(entry.get('id'))}",
        "actor": text(entry.get("actor")),
        "action": action,
        "action_tone": action_tone(action).value,
        "subject": subject_name(entry),
        "subject_note": _short(text(entry.get("subject"))),
        "changed": ", ".join(str(name) for name in entry.get("changed") or ()) or NOTHING,
        "address": text(entry.get("address"), NOTHING),
        **time_cells("at", entry.get("at"), now),
    }


def action_tone(action: str) -> Tone:
    """How much an act takes away."""
    word = action.rpartition(".")[2]
    if word.startswith(_BAD):
        return Tone.BAD
    return Tone.GOOD if word.startswith(_GOOD) else Tone.NEUTRAL


def subject_name(entry: Row) -> str:
    """What people call the subject, as far as the entry tells; else its kind."""
    for side in ("after", "before", "detail"):
        known = row(entry.get(side))
        for name in ("name", "username", "served_model_name", "folder"):
            if known.get(name):
                return text(known[name])
    subject = text(entry.get("subject"))
    if subject == f"user/{text(entry.get('user_id'))}":
        return text(entry.get("actor"))
    return subject.partition("/")[0]


def differences(entry: Row) -> list[Difference]:
    """What was before and what is after: only what changed, or everything of what was made or deleted."""
    before, after = row(entry.get("before")), row(entry.get("after"))
    changed = [str(name) for name in entry.get("changed") or ()]
    names = changed or [name for name in {**before, **after} if _says(before.get(name)) or _says(after.get(name))]
    return [Difference(name, _value(before.get(name)), _value(after.get(name))) for name in names]


def _short(subject: str) -> str:
    kind, _, name = subject.partition("/")
    return f"{kind}/…{name[-8:]}" if len(name) == 36 else subject


def _says(value: object) -> bool:
    return value not in (None, "", [], {}, False)


def _value(value: object) -> str:
    if value is None:
        return NOTHING
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
