"""A whole Cortex with its console, a browser, and somebody signed in for each role."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from cortex_testing.stack import Stack

from .journey import Journey
from .looking import NARROW, WIDE, fits, serious, set_theme

PASSWORD = "a quiet lighthouse keeps turning"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
expect.set_options(timeout=15_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.system)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in."""

    username: str
    password: str = PASSWORD


def chromium() -> str:
    """Where it is; skips the test without one, unless CORTEX_REQUIRE_BROWSER says that there must be one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CORTEX_REQUIRE_BROWSER") == "1":
            pytest.fail("CORTEX_REQUIRE_BROWSER is set and there is no Chromium")
        pytest.skip("no Chromium")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=list(_FLAGS))
        yield made
        made.close()


@pytest.fixture(scope="session")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With the demo model. Tests leave it as they found it."""
    made = Stack(tmp_path_factory.mktemp("console") / "home")
    made.environment["CORTEX_REGISTRY_EVENTS_RECHECK_S"] = "3"  # how soon a feed notices that its session is over
    made.start()
    yield made
    assert made.stop() == 0, made.tail()


@pytest.fixture(scope="session")
def url(stack: Stack) -> str:
    return str(stack.ready["console_url"])


@pytest.fixture
def new_person(stack: Stack) -> Callable[[str], Person]:
    """Makes a user with a one-time password."""

    def make(role: str) -> Person:
        username = f"{role}-{uuid.uuid4().hex[:8]}"
        answer = stack.admin("POST", "/admin/users", {"username": username, "role": role})
        assert answer.status_code == 201, answer.text
        return Person(username, answer.json()["one_time_password"])

    return make


@pytest.fixture
def new_context(browser: Browser) -> Iterator[Callable[[], BrowserContext]]:
    """Fresh browsers, closed after the test."""
    made: list[BrowserContext] = []

    def make() -> BrowserContext:
        context = browser.new_context(viewport=WIDE, reduced_motion="reduce", color_scheme="light")
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def guest(new_context: Callable[[], BrowserContext]) -> Page:
    """Nobody signed in."""
    return new_context().new_page()


def sign_in(page: Page, url: str, person: Person) -> None:
    """By the form; a one-time password is changed to PASSWORD."""
    page.goto(f"{url}/sign-in")
    page.get_by_label("User name").fill(person.username)
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state()
    if "/change-password" in page.url:
        page.get_by_label("One-time password").fill(person.password)
        page.get_by_label("New password", exact=True).fill(PASSWORD)
        page.get_by_label("New password once more").fill(PASSWORD)
        page.get_by_role("button", name="Change password").click()
        page.wait_for_load_state()


@pytest.fixture(scope="session")
def _states(browser: Browser, stack: Stack, url: str) -> dict[str, Path]:
    """Cookies of one signed-in browser for each role."""
    found: dict[str, Path] = {}
    for role in ("admin", "operator", "viewer"):
        answer = stack.admin("POST", "/admin/users", {"username": f"the-{role}", "role": role})
        assert answer.status_code == 201, answer.text
        context = browser.new_context(viewport=WIDE, reduced_motion="reduce", color_scheme="light")
        sign_in(context.new_page(), url, Person(f"the-{role}", answer.json()["one_time_password"]))
        found[role] = stack.home.parent / f"{role}.json"
        context.storage_state(path=found[role])
        context.close()
    return found


def _signed_in(browser: Browser, state: Path, url: str) -> Iterator[Page]:
    context = browser.new_context(
        viewport=WIDE, reduced_motion="reduce", storage_state=json.loads(state.read_text()), base_url=url
    )
    page = context.new_page()
    page.problems = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
    page.on(
        "console",
        lambda message: page.problems.append(message.text) if "Content Security Policy" in message.text else None,  # type: ignore[attr-defined]
    )
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    context.close()


@pytest.fixture
def admin(browser: Browser, _states: dict[str, Path], url: str) -> Iterator[Page]:
    yield from _signed_in(browser, _states["admin"], url)


@pytest.fixture
def operator(browser: Browser, _states: dict[str, Path], url: str) -> Iterator[Page]:
    yield from _signed_in(browser, _states["operator"], url)


@pytest.fixture
def viewer(browser: Browser, _states: dict[str, Path], url: str) -> Iterator[Page]:
    yield from _signed_in(browser, _states["viewer"], url)


@pytest.fixture
def journey(
    new_context: Callable[[], BrowserContext], stack: Stack, url: str, new_person: Callable[[str], Person]
) -> Iterator[Journey]:
    """Of an administrator who has just signed in, with a password of their own; a model that is left is deleted."""
    page = new_context().new_page()
    sign_in(page, url, new_person("admin"))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator(".c-feed")).to_have_text("Live")
    made = Journey(page, stack, url)
    yield made
    if made.model:
        stack.admin("DELETE", f"/admin/models/{made.model}")


def _picture(page: Page, name: str) -> None:
    folder = os.environ.get("CORTEX_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture
def look() -> Callable[[Page, str], None]:
    """Checks a state that `test_every_page` does not see, with axe, and takes its picture: light and dark, wide and narrow."""

    def make(page: Page, name: str) -> None:
        for theme in ("dark", "light"):
            set_theme(page, theme)
            assert serious(page) == [], f"{name} in {theme}"
            _picture(page, f"{name}-{theme}-1280")
        page.set_viewport_size(NARROW)
        fits(page)
        assert serious(page) == [], f"{name}, narrow"
        _picture(page, f"{name}-light-390")
        page.set_viewport_size(WIDE)

    return make
