"""The audit log: who did what, from where, before and after."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

COLUMNS = (
    "id",
    "at",
    "actor",
    "action",
    "subject",
    "request_id",
    "user_id",
    "address",
    "changed",
    "before",
    "after",
    "detail",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PARTS = ("changed", "before", "after")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    request_id: str | None
    user_id: str | None
    address: str | None
    detail: Mapping[str, JsonValue]

    def flat(self) -> dict[str, JsonValue]:
        """As it is exported; what `detail` holds beside the change itself stays there."""
        rest = {name: value for name, value in self.detail.items() if name not in _PARTS}
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "request_id": self.request_id,
            "user_id": self.user_id,
            "address": self.address,
            "changed": self.detail.get("changed"),
            "before": self.detail.get("before"),
            "after": self.detail.get("after"),
            "detail": rest or None,
        }


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which acts somebody wants; None means any. `*` at the end of action and subject stands for the rest."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def like(pattern: str | None) -> str | None:
    """A pattern with `*` for the rest as one of SQL's LIKE."""
    if pattern is None:
        return None
    bare, star = (pattern[:-1], "%") if pattern.endswith("*") else (pattern, "")
    return bare.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + star


def to_jsonl(entries: Iterable[AuditEntry]) -> str:
    """A JSON object per line."""
    return "".join(json.dumps(entry.flat(), ensure_ascii=False, separators=(",", ":")) + "\n" for entry in entries)


def csv_header() -> str:
    return _line(COLUMNS)


def to_csv(entries: Iterable[AuditEntry]) -> str:
    """Lines of CSV (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe in front."""
    return "".join(_line([_cell(value) for value in entry.flat().values()]) for entry in entries)


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"'{text}" if text.startswith(_FORMULA) else text
