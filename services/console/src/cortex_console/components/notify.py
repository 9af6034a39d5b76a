"""Messages that come and go. They have no `type`: Quasar's colours of types cannot be overruled, and are not of the theme."""

from nicegui import ui

from cortex_console.domain.advice import next_step
from cortex_console.domain.navigation import sign_in_address
from cortex_console.errors import ConsoleError
from cortex_kit.logging import get_logger

log = get_logger()
_TEXT = "toast"
"""A colour that Quasar does not know: else it says `text-white`, which cannot be overruled."""


def done(message: str) -> None:
    """Something worked."""
    ui.notify(
        message,
        icon="o_check_circle",
        position="bottom-right",
        timeout=3500,
        classes="c-toast c-toast-good",
        textColor=_TEXT,
    )


def tell(message: str) -> None:
    """Something worth knowing."""
    ui.notify(message, icon="o_info", position="bottom-right", timeout=5000, classes="c-toast", textColor=_TEXT)


def explain(reason: str) -> None:
    """Why nothing happened."""
    ui.notify(reason, position="bottom-right", classes="c-toast", textColor=_TEXT)


def show_error(error: Exception) -> None:
    """What went wrong, with its code and what to do next. A session that has ended leads to signing in."""
    if isinstance(error, TimeoutError):
        log.info("browser_slow", reason=str(error))  # a question to the browser of NiceGUI's own; nobody waits for it
        return
    if isinstance(error, ConsoleError):
        if error.is_signed_out:
            sign_in_again()
            return
        message = " ".join(field.message for field in error.fields) or error.message
        caption = f"{error.code} · {next_step(error.code, error.status)}"
    else:
        log.error("page_crashed", exc_info=error)
        message, caption = "The console failed.", "internal_error · Its log holds the reason. Reload the page."
    ui.notify(
        message,
        caption=caption,
        icon="o_error_outline",
        position="bottom-right",
        multi_line=True,
        close_button="Dismiss",
        timeout=12_000,
        classes="c-toast c-toast-bad",
        textColor=_TEXT,
    )


def sign_in_again() -> None:
    """Leave for the sign-in page, and come back here from there."""
    request = ui.context.client.request
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    ui.navigate.to(sign_in_address(target, "ended"))
