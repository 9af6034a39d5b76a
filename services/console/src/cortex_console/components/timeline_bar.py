"""States over time as one bar."""

from datetime import datetime

from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.timeline import Turn, segments, unknown_share


def timeline_bar(label: str, turns: list[Turn], begin: datetime, end: datetime, *, thin: bool = False) -> None:
    """From `begin` to `end`; each part says on hover what it was and why."""
    parts = segments(turns, begin, end)
    told = "; ".join(f"{part.state} {part.share:.0%}" for part in parts) or "nothing known"
    with labelled(box(f"c-timeline{' c-timeline-thin' if thin else ''}").props('role="img"'), f"{label}: {told}"):
        unknown = unknown_share(turns, begin, end)
        if unknown > 0:
            box("c-timeline-part c-timeline-unknown").style(f"flex-grow:{unknown:.5f}").props["title"] = "not known"
        for part in parts:
            made = box(f"c-timeline-part c-timeline-{part.tone.value}").style(f"flex-grow:{part.share:.5f}")
            made.props["title"] = part.words
    if not thin:
        with box("c-timeline-ends"):
            Text("span", f"{begin:%b %d %H:%M} UTC", "c-hint")
            Text("span", "now", "c-hint")
