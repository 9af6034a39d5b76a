"""Where a question is written, sent and stopped."""

from collections.abc import Awaitable, Callable

from nicegui import events, ui

from cortex_console.components.buttons import button
from cortex_console.components.text import Text, box, labelled
from cortex_console.components.unfinished import Unfinished

_ENTER = (
    "(event) => { if (!event.shiftKey && !event.isComposing) { event.preventDefault(); emit(event.target.value); } }"
)


class Composer:
    """Enter sends, Shift and Enter begins a line."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[None]],
        stop: Callable[[], None],
        again: Callable[[], Awaitable[None]],
        unfinished: Unfinished,
    ) -> None:
        self._ask = ask
        self._unfinished = unfinished
        with box("pg-composer") as self.element:
            self._field = ui.textarea(placeholder="Ask something").props('outlined autogrow maxlength="100000"')
            labelled(self._field.classes("c-field pg-field"), "Your message")
            self._field.props["data-unfinished"] = unfinished.name
            self._field.on("keydown.enter", self._on_enter, js_handler=_ENTER)
            with box("pg-composer-foot"):
                Text("span", "Enter sends, Shift+Enter begins a new line", "c-hint pg-wide")
                box("c-spring")
                self._again = button("Ask again", again, icon="o_refresh", kind="quiet")
                self._stop = button("Stop", stop, icon="o_stop")
                self._send = ui.button("Send", icon="o_send", color=None, on_click=self._on_send)
                self._send.props("no-caps unelevated").classes("c-button c-button-primary")
        self._busy = False
        self._may_again = False
        self._show()
        ui.timer(0, self._bring_back, once=True)

    @property
    def text(self) -> str:
        """What is written."""
        return self._field.value or ""

    @property
    def busy(self) -> bool:
        """Whether an answer is coming."""
        return self._busy

    @busy.setter
    def busy(self, value: bool) -> None:
        self._busy = value
        self._show()

    @property
    def may_ask_again(self) -> bool:
        """Whether there is an answer to be replaced."""
        return self._may_again

    @may_ask_again.setter
    def may_ask_again(self, value: bool) -> None:
        self._may_again = value
        self._show()

    def clear(self, sent: str) -> None:
        """After it was sent."""
        self._field.value = ""
        self._unfinished.sent(sent)

    def focus(self) -> None:
        """Put the cursor there."""
        self._field.run_method("focus")

    async def _on_enter(self, event: events.GenericEventArguments) -> None:
        if not self._busy:
            await self._ask(str(event.args or ""))

    async def _bring_back(self) -> None:
        typed = (await self._unfinished.back()).get("text")
        if isinstance(typed, str) and not self.text:
            self._field.value = typed

    async def _on_send(self) -> None:
        await self._ask(self.text)

    def _show(self) -> None:
        self._stop.visible = self._busy
        self._send.visible = not self._busy
        self._again.visible = self._may_again and not self._busy
