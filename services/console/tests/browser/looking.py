"""Going to a page, and judging what is there."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
LOOKS = 4
LOOK_AGAIN_MS = 500


def visit(page: Page, path: str) -> None:
    """Go there, and wait until the page is live."""
    page.goto(path)
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(".c-feed")).to_have_text("Live")


def fits(page: Page) -> None:
    """Wait until it has taken the width of its window; what stays wider scrolls sideways."""
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")


def settle(page: Page) -> None:
    """Wait until nothing fades any more: half a colour has half a contrast."""
    # Their promises are not waited for: that of an animation whose element went away may never be settled.
    page.wait_for_function(
        "document.getAnimations().every((one) => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity)"
    )


def serious(page: Page) -> list[str]:
    """What axe finds serious or worse, in words. What is being redrawn is looked at again: a fault stays."""
    found: list[str] = []
    for _ in range(LOOKS):
        settle(page)
        found = _serious(page)
        if not found:
            break
        page.wait_for_timeout(LOOK_AGAIN_MS)
    return found


def _serious(page: Page) -> list[str]:
    modal = "[role=dialog], [role=alertdialog]"
    found = Axe().run(page, context=modal if page.locator(modal).count() else None).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[_node(node) for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def _node(node: dict[str, Any]) -> str:
    """The element, and which colours were compared."""
    colours = [one["data"] for one in node["any"] if one["id"] == "color-contrast"]
    return f"{node['html'][:160]} {colours or ''}"


def set_theme(page: Page, theme: str) -> None:
    toggle = page.locator("[data-theme-toggle], [aria-label^='Switch to']").first
    if page.evaluate("document.documentElement.classList.contains('dark')") != (theme == "dark"):
        toggle.click()
    expect(page.locator(f"html{':not(.dark)' if theme == 'light' else '.dark'}")).to_be_attached()
    expect(page.locator(f"body.plain, body.body--{theme}")).to_be_attached()
