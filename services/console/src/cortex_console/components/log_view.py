"""A window onto a log. The lines live in the browser, at most 5000 of them."""

from collections.abc import Callable, Sequence

from nicegui import events, ui

from cortex_console.domain.log_lines import Severity


class LogView(ui.element, component="log_view.js"):
    """Filters, wraps and follows without asking anybody for the lines again."""

    def __init__(self, label: str, on_following: Callable[[bool], None]) -> None:
        super().__init__()
        self.props["label"] = label
        self.on("following", lambda event: on_following(_flag(event)))

    def push(self, lines: Sequence[tuple[str, Severity]]) -> None:
        """Add lines at the end; the oldest leave."""
        self.run_method("push", [[line, level.value] for line, level in lines])

    def filter(self, search: str, levels: Sequence[Severity] | None) -> None:
        """Show those alone that contain the text and are of these levels; None: of all."""
        self.run_method("filter", search, [level.value for level in levels] if levels is not None else None)

    def set_wrap(self, wrap: bool) -> None:
        """Break long lines, or scroll to their ends."""
        self.run_method("setWrap", wrap)

    def follow(self, following: bool) -> None:
        """Stay at the end when lines come."""
        self.run_method("follow", following)

    def empty(self) -> None:
        """Forget all lines."""
        self.run_method("clear")

    def download(self, name: str) -> None:
        """Save what is shown as a file."""
        self.run_method("download", name)

    def copy_handler(self) -> str:
        """JavaScript for the click of a button: puts what is shown into the clipboard."""
        return f"(event) => getElement({self.id}).copy(event.currentTarget)"


def _flag(event: events.GenericEventArguments) -> bool:
    return bool(event.args)
