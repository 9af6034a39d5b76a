"""What surrounds every page: header, navigation, theme, user."""

from collections.abc import Sequence

from nicegui import Client, ui

from cortex_console.adapters.event_feed import FeedState
from cortex_console.components.notify import sign_in_again
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, labelled
from cortex_console.theme import THEME_COOKIE

_FEED = {
    FeedState.CONNECTING: ("Connecting", "c-busy"),
    FeedState.LIVE: ("Live", "c-good"),
    FeedState.RETRYING: ("Reconnecting", "c-warn"),
    FeedState.SIGNED_OUT: ("Signed out", "c-bad"),
}
DRAWER_BREAKPOINT = 1023


def is_dark(client: Client) -> bool:
    """What the browser remembers."""
    return client.request.cookies.get(THEME_COOKIE) == "dark"


def shell(context: PageContext, pages: Sequence[Page]) -> ui.element:
    """Draw it; the element that the page goes into."""
    client = ui.context.client
    ui.add_head_html(
        f'<link rel="stylesheet" href="{context.installation.assets}/console.css">'
        f'<script src="{context.installation.assets}/console.js" nonce="{client.request.state.csp_nonce}"></script>'
    )
    dark = ui.dark_mode(value=context.theme.dark)
    drawer = ui.left_drawer(value=None, bordered=True).props(f"width=236 breakpoint={DRAWER_BREAKPOINT}")
    with drawer.classes("c-drawer"):
        _navigation(context, pages)
    with ui.header(elevated=False).classes("c-header"):
        ui.button(icon="o_menu", on_click=drawer.toggle, color=None).props(
            'flat round dense aria-label="Navigation"'
        ).classes("c-icon-button c-burger")
        with ui.link(target="/").classes("c-brand").props('aria-label="Cortex, overview"'):
            ui.element("img").props(f'src="{context.installation.assets}/logo.svg" alt="" width="24" height="24"')
            Text("span", "Cortex")
        box("c-spring")
        feed = Text("span", "Connecting", "c-feed c-dot c-busy").props('role="status" aria-live="polite"')
        _theme_button(context, dark)
        _user_menu(context)
    client.content.classes("c-page")
    main = box("c-main")
    ui.skip_link(target=main)

    def show(state: FeedState) -> None:
        word, tone = _FEED[state]
        feed.text = word
        feed.classes(replace=f"c-feed c-dot {tone}")
        if state is FeedState.SIGNED_OUT:
            sign_in_again()

    context.follow(client, show)
    return main


def _navigation(context: PageContext, pages: Sequence[Page]) -> None:
    here = context.page.belongs_to or context.page.path
    with box("c-nav", "nav").props('aria-label="Main"'):
        group = ""
        for page in pages:
            if not page.group or not context.may(page.right):
                continue
            if page.group != group:
                group = page.group
                Text("div", group, "c-nav-group")
            with ui.link(target=page.path).classes("c-nav-item") as item:
                ui.icon(page.icon).props('aria-hidden="true"')
                Text("span", page.title)
            if page.path == here:
                item.props('aria-current="page"')


def _theme_button(context: PageContext, dark: ui.dark_mode) -> None:
    def label() -> str:
        return "Switch to light" if context.theme.dark else "Switch to dark"

    def toggle() -> None:
        now_dark = not context.theme.dark
        dark.set_value(now_dark)
        context.theme.set(now_dark)
        name = "dark" if now_dark else "light"
        ui.run_javascript(
            f"document.documentElement.classList.toggle('dark', {str(now_dark).lower()});cortexRememberTheme('{name}')"
        )
        made.props(f'icon={"o_light_mode" if now_dark else "o_dark_mode"} aria-label="{label()}"')

    made = ui.button(icon="o_light_mode" if context.theme.dark else "o_dark_mode", on_click=toggle, color=None)
    made.props(f'flat round dense aria-label="{label()}"').classes("c-icon-button")


def _user_menu(context: PageContext) -> None:
    me = context.me
    account = ui.button(color=None).props('flat no-caps dense aria-haspopup="menu"').classes("c-user")
    with labelled(account, f"Account of {me.username}"):
        Text("span", me.username[:1].upper(), "c-avatar").props('aria-hidden="true"')
        Text("span", me.username, "c-user-name")
        with ui.menu().props('anchor="bottom right" self="top right"').classes("c-menu"):
            with box("c-menu-head"):
                Text("div", me.username, "c-strong")
                Text("div", me.role, "c-hint")
            ui.menu_item("Your account", lambda: ui.navigate.to("/account"))
            ui.menu_item("Change password", lambda: ui.navigate.to("/change-password"))
            ui.menu_item("My API keys", lambda: ui.navigate.to("/keys"))
            ui.menu_item("Sign out", _sign_out)


def _sign_out() -> None:
    # A form, not a request of this connection: the browser itself has to forget the cookies.
    ui.run_javascript(
        "const form = document.createElement('form'); form.method = 'post'; form.action = '/sign-out';"
        "document.body.append(form); form.submit();"
    )
