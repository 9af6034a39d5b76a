"""Every page of the catalogue, as an administrator sees it: usable by everybody, in both themes, and it fits a phone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cortex_console.pages.catalogue import PAGES
from cortex_testing.stack import DEMO, Stack

from .looking import NARROW, WIDE, fits, serious, set_theme, settle, visit


@pytest.fixture(scope="module")
def known(stack: Stack) -> Iterator[dict[str, str]]:
    """What the parameters of paths stand for."""
    body = {"name": "every page", "url": "http://127.0.0.1:9/hook", "enabled": False}
    made = stack.admin("POST", "/admin/webhooks", body)
    assert made.status_code == 201, made.text
    yield {"reference": str(stack.model(DEMO)["id"]), "webhook_id": str(made.json()["id"])}
    stack.admin("DELETE", f"/admin/webhooks/{made.json()['id']}")


@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_a_page_is_usable_by_everybody_and_fits_a_phone(admin: Page, known: dict[str, str], path: str) -> None:
    admin.set_viewport_size(NARROW)
    visit(admin, path.format(**known))
    expect(admin.locator(".q-skeleton:visible")).to_have_count(0)
    fits(admin)
    assert serious(admin) == []
    _pictures(admin, path, 390)
    admin.set_viewport_size(WIDE)
    expect(admin.locator(".c-burger")).to_be_hidden()
    for theme in ("dark", "light"):
        set_theme(admin, theme)
        assert serious(admin) == [], theme
    _pictures(admin, path, 1280)
    shown = next(page for page in PAGES if page.path == path)
    expect(admin.locator(".c-nav-item[aria-current='page']")).to_have_count(1 if shown.group or shown.belongs_to else 0)


def _pictures(page: Page, path: str, width: int) -> None:
    """Of both themes, into CORTEX_SCREENSHOTS; none without it."""
    folder = os.environ.get("CORTEX_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    known = path.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "overview"
    for theme in ("dark", "light"):
        set_theme(page, theme)
        settle(page)
        page.screenshot(path=Path(folder) / f"every-{known}-{theme}-{width}.png", full_page=True)
