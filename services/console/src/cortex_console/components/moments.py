"""Times as people read them, with the exact one for whoever points at it, and bars of what is used."""

from datetime import UTC, datetime

from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.formatting import ago_text, time_text


def ago(value: object, classes: str = "c-hint c-nowrap") -> Text:
    """`3 min ago`; the exact time on hover."""
    made = Text("time", ago_text(value, datetime.now(UTC)), classes)
    made.props["datetime"] = str(value or "")
    made.props["title"] = time_text(value)
    return made


def meter(label: str, share: float | None, tone: str = "accent") -> None:
    """A bar that is filled to a share of 0 to 1; None: nobody knows, it moves."""
    with labelled(box("c-meter").props('role="progressbar" aria-valuemin="0" aria-valuemax="100"'), label) as made:
        if share is None:
            box("c-meter-fill c-meter-unknown")
            return
        percent = round(100 * max(0.0, min(1.0, share)), 1)
        made.props["aria-valuenow"] = str(percent)
        box(f"c-meter-fill c-meter-{tone}").style(f"width:{percent}%")
