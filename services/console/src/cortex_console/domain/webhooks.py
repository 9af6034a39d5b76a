"""Webhooks and their deliveries as the console shows them."""

from collections.abc import Mapping
from datetime import datetime

from cortex_console.domain.formatting import NOTHING, ago_text, duration_text, time_cells, time_text
from cortex_console.domain.shapes import Row, number, rows, text, whole
from cortex_console.domain.states import Tone

EVENT_CHOICES: Mapping[str, str] = {
    "*": "* (everything but progress)",
    "model.*": "model.* (made, changed, another state)",
    "model.state_changed": "model.state_changed",
    "container.*": "container.* (engines)",
    "container.failed": "container.failed",
    "placement.rejected": "placement.rejected",
    "node.updated": "node.updated",
    "upstream.*": "upstream.* (health)",
    "upstream.unhealthy": "upstream.unhealthy",
    "key.*": "key.*",
    "user.*": "user.*",
    "org.*": "org.*",
    "recipe.*": "recipe.*",
    "gguf.*": "gguf.* (model files)",
    "webhook.*": "webhook.*",
}
STATUSES = {"pending": "Waiting", "delivered": "Delivered", "failed": "Given up", "cancelled": "Cancelled"}
_TONES = {"pending": Tone.BUSY, "delivered": Tone.GOOD, "failed": Tone.BAD, "cancelled": Tone.NEUTRAL}


def webhook_state(answer: Row, now: datetime) -> tuple[str, Tone, str]:
    """How it fares: a word, how it looks, and why."""
    if not answer.get("enabled"):
        reason = text(answer.get("disabled_reason"))
        return ("switched off", Tone.BAD, reason) if reason else ("off", Tone.NEUTRAL, "")
    if answer.get("failing_since"):
        since = ago_text(answer.get("failing_since"), now)
        last = text(answer.get("last_error"))
        return "failing", Tone.BAD, f"since {since}{': ' if last else ''}{last}"
    if whole(answer.get("failures")):
        return "trying again", Tone.WARN, text(answer.get("last_error"))
    if answer.get("last_success_at"):
        return "delivers", Tone.GOOD, ""
    return "on", Tone.NEUTRAL, "nothing sent yet"


def events_text(answer: Row) -> str:
    """Of which types it is told."""
    return ", ".join("all" if one == "*" else str(one) for one in answer.get("events") or ())


def webhook_row(answer: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    state, tone, note = webhook_state(answer, now)
    waiting = whole(answer.get("pending"))
    sent = answer.get("last_success_at")
    return {
        "id": text(answer.get("id")),
        "row_name": text(answer.get("name")),
        "name": text(answer.get("name")),
        "name_href": f"/settings/webhooks/{text(answer.get('id'))}",
        "name_note": text(answer.get("url")),
        "events": events_text(answer),
        "state": state,
        "state_tone": tone.value,
        "state_note": note,
        "waiting": str(waiting) if waiting else NOTHING,
        "waiting_sort": waiting,
        **(time_cells("sent", sent, now) | ({} if sent else {"sent": "never"})),
    }


def delivery_row(answer: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    status = text(answer.get("status"))
    return {
        "id": text(answer.get("id")),
        "row_name": f"delivery {text(answer.get('id'))}",
        "event": text(answer.get("event_type")).removesuffix(".v1"),
        "event_note": _kind(answer),
        "status": STATUSES.get(status, status).lower(),
        "status_tone": _TONES.get(status, Tone.NEUTRAL).value,
        "status_note": _outcome(answer, now),
        "attempts": whole(answer.get("attempts")),
        **time_cells("at", answer.get("created_at"), now),
    }


def attempt_lines(answer: Row) -> list[tuple[str, str, str]]:
    """Of each request: when, the answer, how long it took; the newest first."""
    lines: list[tuple[str, str, str]] = []
    for one in rows(answer.get("log")):
        took = number(one.get("duration_ms"))
        told = text(one.get("error")) or f"answer {text(one.get('status'), NOTHING)}"
        lines.append((time_text(one.get("at")), told, duration_text(took / 1000 if took is not None else None)))
    return lines


def test_outcome(answer: Row) -> str:
    """What became of a test event, in a sentence."""
    took = number(answer.get("duration_ms"))
    shown = duration_text(took / 1000 if took is not None else None)
    if answer.get("delivered"):
        return f"Delivered: answer {text(answer.get('status'))} after {shown}."
    return f"Not delivered: {text(answer.get('error')) or 'answer ' + text(answer.get('status'), NOTHING)} ({shown})."


def _kind(answer: Row) -> str:
    kind, sequence = text(answer.get("kind")), answer.get("sequence")
    parts = [f"no. {sequence}"] if sequence is not None else []
    return " · ".join(parts + ([] if kind == "event" else [kind]))


def _outcome(answer: Row, now: datetime) -> str:
    status = text(answer.get("status"))
    last = text(answer.get("last_error")) or (
        f"answer {answer.get('last_status')}" if answer.get("last_status") is not None else ""
    )
    following = answer.get("next_attempt_at")
    if status == "pending" and following and whole(answer.get("attempts")):
        return f"{last}, again at {time_text(following)[11:]}".lstrip(", ")
    return last
