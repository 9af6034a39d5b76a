"""Backups and the jobs that make them, as the console shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cortex_console.domain.formatting import NOTHING, bytes_text, count_text, duration_text, moment, time_cells
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.states import Tone

PARTS: Mapping[str, str] = {
    "database": "Database",
    "models": "Models, to import elsewhere",
    "settings": "Settings",
    "model_files": "Model files (weights)",
}
_SHORT = {"database": "database", "models": "models", "settings": "settings", "model_files": "model files"}
_TONES = {
    "queued": Tone.BUSY,
    "running": Tone.BUSY,
    "succeeded": Tone.GOOD,
    "failed": Tone.BAD,
    "cancelled": Tone.NEUTRAL,
}
KINDS = {"export": "Backup", "restore": "Restore"}


def backup_row(answer: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    problems = rows(answer.get("problems"))
    restorable = bool(answer.get("restorable"))
    return {
        "id": text(answer.get("folder")),
        "row_name": text(answer.get("folder")),
        "folder": text(answer.get("folder")),
        "folder_note": ", ".join(_SHORT.get(str(part), str(part)) for part in answer.get("parts") or ()),
        "by": text(answer.get("created_by"), NOTHING),
        "size": bytes_text(number(answer.get("bytes"))),
        "size_sort": number(answer.get("bytes")) or 0,
        "restorable": "yes" if restorable else "not now",
        "restorable_tone": (Tone.GOOD if restorable else Tone.WARN).value,
        "restorable_note": " ".join(text(one.get("message")) for one in problems),
        **time_cells("made", answer.get("created_at"), now),
    }


def backup_facts(answer: Row) -> dict[str, str]:
    """What a backup holds."""
    tables = {text(one.get("name")): whole(one.get("rows")) for one in rows(answer.get("tables"))}
    shown = {
        "models": "Models",
        "api_keys": "API keys",
        "users": "Users",
        "usage": "Usage records",
        "audit": "Audit entries",
    }
    counted = {label: count_text(tables[name]) for name, label in shown.items() if name in tables}
    known = {
        "Size": bytes_text(number(answer.get("bytes"))),
        "Made by": text(answer.get("created_by"), NOTHING),
        "Cortex": text(answer.get("version"), NOTHING),
        "Schema": text(answer.get("schema_version"), NOTHING),
    }
    return known | counted


def job_row(answer: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row."""
    status, error = text(answer.get("status")), row(answer.get("error"))
    return {
        "id": text(answer.get("id")),
        "job": f"{KINDS.get(text(answer.get('kind')), '')} {text(answer.get('folder'))}",
        "status": status,
        "status_tone": _TONES.get(status, Tone.NEUTRAL).value,
        "status_note": " ".join(text(error.get(name)) for name in ("message", "fix") if error.get(name)),
        "by": text(answer.get("requested_by")),
        "took": _took(answer),
        **time_cells("asked", answer.get("created_at"), now),
    }


def progress(answer: Row) -> tuple[float | None, str]:
    """Of a job that runs: how far from 0 to 1, where that can be told, and in words."""
    done, total = number(answer.get("done_bytes")) or 0.0, number(answer.get("total_bytes"))
    step = text(answer.get("step")) or "waiting for its turn"
    if answer.get("cancel_requested"):
        step = "ending"
    if not total:
        return None, f"{step}, {bytes_text(done)} so far" if done else step
    return min(1.0, done / total), f"{step}, {bytes_text(done)} of about {bytes_text(total)}"


def estimate_text(answer: Row) -> str:
    """How large a backup would become."""
    told = f"About {bytes_text(number(answer.get('total_bytes')))}; {bytes_text(number(answer.get('free_bytes')))} are free."
    return f"{told} That does not fit." if answer.get("fits") is False else told


def export_body(values: Mapping[str, Any]) -> dict[str, Any]:
    """The registry's words for what the form holds."""
    include = [part for part in PARTS if values.get(part)]
    return {"folder": values.get("folder") or None, "include": include, "usage": bool(values.get("usage"))}


def _took(answer: Row) -> str:
    begun, ended = moment(answer.get("started_at")), moment(answer.get("finished_at"))
    return duration_text((ended - begun).total_seconds()) if begun and ended else NOTHING
