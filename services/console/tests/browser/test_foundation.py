"""Signing in, roles, themes, safety, and the first pages, against the real stack."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from cortex_console.pages.catalogue import PAGES
from cortex_testing.stack import DEMO, Stack, eventually

from .conftest import PASSWORD, Person, sign_in
from .looking import serious, visit

Look = Callable[[Page, str], None]


def test_the_sign_in_page_is_usable_by_everybody(guest: Page, url: str, look: Look) -> None:
    guest.goto(url)
    assert urlsplit(guest.url).path == "/sign-in"
    expect(guest.get_by_label("User name")).to_be_focused()
    look(guest, "sign-in")


def test_a_wrong_password_is_told_and_nobody_is_signed_in(guest: Page, url: str) -> None:
    sign_in(guest, url, Person("the-admin", "not this one at all"))
    expect(guest.get_by_role("alert")).to_contain_text("wrong")
    assert serious(guest) == []
    guest.goto(f"{url}/models")
    assert urlsplit(guest.url).path == "/sign-in"


def test_a_sign_in_link_works_once(guest: Page, stack: Stack, url: str, new_person: Callable[[str], Person]) -> None:
    person = new_person("operator")
    code = stack.admin("POST", "/admin/auth/sign-in-codes", {"username": person.username}).json()["code"]
    link = f"{url}/sign-in/link?code={code}"
    guest.goto(link)
    assert serious(guest) == []
    guest.get_by_role("button", name="Sign in").click()
    guest.get_by_label("New password", exact=True).fill(PASSWORD)
    guest.get_by_label("New password once more").fill(PASSWORD)
    assert serious(guest) == []
    guest.get_by_role("button", name="Sign in").click()
    expect(guest.get_by_role("heading", name="Overview")).to_be_visible()
    guest.goto(link)
    guest.get_by_role("button", name="Sign in").click()
    expect(guest.get_by_role("alert")).to_contain_text("was used")


def test_the_start_prints_where_the_console_is_and_a_link(stack: Stack, url: str) -> None:
    shown = stack.log.read_text()
    assert f"console      {url}" in shown
    assert f"  {url}/sign-in/link?code=" in shown


def test_after_many_failures_one_has_to_wait(guest: Page, url: str) -> None:
    for _ in range(20):  # each further failure blocks for twice as long: at some time for longer than an attempt takes
        sign_in(guest, url, Person("nobody-at-all", "still not this one"))
        expect(guest.get_by_role("alert")).to_be_visible()
        if "Wait" in guest.get_by_role("alert").inner_text():
            return
    pytest.fail("nobody had to wait")


def test_a_one_time_password_must_be_changed_before_anything_else(
    guest: Page, url: str, new_person: Callable[[str], Person]
) -> None:
    person = new_person("viewer")
    guest.goto(f"{url}/models")
    guest.get_by_label("User name").fill(person.username)
    guest.get_by_label("Password").fill(person.password)
    guest.get_by_role("button", name="Sign in").click()
    guest.wait_for_url("**/change-password")
    assert serious(guest) == []
    guest.goto(f"{url}/models")
    guest.wait_for_url("**/change-password")
    guest.get_by_label("One-time password").fill(person.password)
    guest.get_by_label("New password", exact=True).fill(PASSWORD)
    guest.get_by_label("New password once more").fill(PASSWORD + " not")
    guest.get_by_role("button", name="Change password").click()
    expect(guest.get_by_role("alert")).to_contain_text("differ")
    guest.get_by_label("One-time password").fill(person.password)
    guest.get_by_label("New password", exact=True).fill("password1234")
    guest.get_by_label("New password once more").fill("password1234")
    guest.get_by_role("button", name="Change password").click()
    expect(guest.get_by_role("alert")).to_be_visible()
    guest.get_by_label("One-time password").fill(person.password)
    guest.get_by_label("New password", exact=True).fill(PASSWORD)
    guest.get_by_label("New password once more").fill(PASSWORD)
    guest.get_by_role("button", name="Change password").click()
    expect(guest.get_by_role("heading", name="Overview")).to_be_visible()


def test_signing_in_leads_to_where_one_wanted_to_be_and_signing_out_ends_it(
    guest: Page, url: str, new_person: Callable[[str], Person]
) -> None:
    person = new_person("operator")
    sign_in(guest, url, person)
    context = guest.context
    expect(guest.locator(".c-feed")).to_have_text("Live")
    other = context.new_page()
    other.goto(f"{url}/models")
    expect(other.locator(".c-feed")).to_have_text("Live")
    guest.get_by_role("button", name=f"Account of {person.username}").click()
    guest.get_by_text("Sign out").click()
    guest.wait_for_url("**/sign-in?reason=out")
    assert [cookie["name"] for cookie in context.cookies() if "session" in cookie["name"]] == []
    other.reload()
    assert urlsplit(other.url).path == "/sign-in"


def test_a_session_that_is_ended_elsewhere_ends_its_open_pages(
    stack: Stack, guest: Page, url: str, new_person: Callable[[str], Person]
) -> None:
    person = new_person("viewer")
    sign_in(guest, url, person)
    guest.goto(f"{url}/models")
    expect(guest.locator(".c-feed")).to_have_text("Live")
    users = stack.admin("GET", "/admin/users").json()["items"]
    user = next(user for user in users if user["username"] == person.username)
    assert stack.admin("DELETE", f"/admin/users/{user['id']}").status_code == 204
    guest.wait_for_url("**/sign-in?**", timeout=60_000)
    expect(guest.get_by_role("status")).to_contain_text("ended")


def test_cookies_are_out_of_reach_of_scripts(admin: Page, url: str) -> None:
    visit(admin, "/")
    mine = [cookie for cookie in admin.context.cookies() if cookie["name"].startswith("cortex_console")]
    assert len(mine) == 2
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in mine)
    assert "session" not in admin.evaluate("document.cookie")


def test_overview(admin: Page) -> None:
    visit(admin, "/")
    expect(admin.get_by_text("Models running")).to_be_visible()
    expect(admin.locator(".c-list-row", has_text=DEMO).first).to_be_visible()


def test_models(admin: Page) -> None:
    visit(admin, "/models")
    row = admin.get_by_role("row", name=DEMO)
    expect(row.locator(".c-badge", has_text="running")).to_be_visible()
    expect(row.get_by_text("llama.cpp")).to_be_visible()


def test_the_list_of_models_is_searched_and_filtered(admin: Page) -> None:
    visit(admin, "/models")
    admin.get_by_label("Search models").fill("no such model")
    expect(admin.get_by_text("Nothing matches.")).to_be_visible()
    expect(admin.get_by_text("0 of 1 model")).to_be_visible()
    admin.get_by_label("Search models").fill(DEMO[:6].upper())
    expect(admin.get_by_role("row", name=DEMO)).to_be_visible()


def test_the_theme_is_remembered(admin: Page) -> None:
    visit(admin, "/")
    admin.get_by_role("button", name="Switch to dark").click()
    expect(admin.locator("body.body--dark")).to_be_attached()
    visit(admin, "/models")
    expect(admin.locator("body.body--dark")).to_be_attached()
    admin.get_by_role("button", name="Switch to light").click()
    expect(admin.locator("body.body--light")).to_be_attached()


def test_the_keyboard_reaches_the_page_before_the_navigation(admin: Page) -> None:
    visit(admin, "/models")
    admin.keyboard.press("Tab")
    expect(admin.locator(".nicegui-skip-link")).to_be_focused()
    admin.keyboard.press("Enter")
    assert admin.evaluate("document.activeElement.classList.contains('c-main')")


def test_the_navigation_leads_to_every_page_that_has_a_place_there(admin: Page) -> None:
    visit(admin, "/")
    links = admin.locator("nav a").evaluate_all("(all) => all.map((one) => new URL(one.href).pathname)")
    assert links == [page.path for page in PAGES if page.group]


def test_a_viewer_sees_and_cannot_act_and_the_registry_refuses_it_anyway(viewer: Page, stack: Stack, url: str) -> None:
    visit(viewer, "/models")
    expect(viewer.get_by_role("row", name=DEMO)).to_be_visible()
    assert viewer.get_by_role("button", name="Stop").count() == 0
    assert viewer.get_by_text("New model").count() == 0
    assert viewer.locator("nav").get_by_text("Users").count() == 0
    visit(viewer, "/users")
    expect(viewer.get_by_text("Not for your role")).to_be_visible()
    cookies = {cookie["name"]: cookie["value"] for cookie in viewer.context.cookies()}
    refused = httpx.post(
        f"{stack.ready['registry_url']}/admin/models/{DEMO}/stop",
        cookies={"cortex_session": cookies["cortex_console_session"]},
        headers={"X-CSRF-Token": cookies["cortex_console_csrf"]},
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_an_operator_stops_and_starts_but_cannot_delete(operator: Page, stack: Stack) -> None:
    visit(operator, "/models")
    row = operator.get_by_role("row", name=DEMO)
    row.get_by_role("button", name=f"Stop {DEMO}").click()
    dialog = operator.get_by_role("alertdialog")
    expect(dialog).to_contain_text("are refused from now on")
    assert serious(operator) == []
    dialog.get_by_role("button", name="Stop").click()
    expect(row.locator(".c-badge", has_text="stopped")).to_be_visible(timeout=30_000)
    row.get_by_role("button", name=f"More for {DEMO}").click()
    expect(operator.get_by_role("listitem").filter(has_text="Delete")).to_contain_text("takes an administrator")
    operator.keyboard.press("Escape")
    row.get_by_role("button", name=f"Start {DEMO}").click()
    expect(row.locator(".c-badge", has_text="running")).to_be_visible(timeout=60_000)


def test_no_request_leaves_and_the_policy_is_strict(admin: Page, url: str) -> None:
    foreign: list[str] = []
    admin.on(
        "request",
        lambda request: None if request.url.startswith((url, "data:", "blob:")) else foreign.append(request.url),
    )
    for path in ("/", "/models", "/usage"):
        visit(admin, path)
    assert foreign == []
    answer = admin.request.get(f"{url}/models")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self' 'nonce-" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    # A script without the nonce does not run.
    admin.evaluate(
        "() => { const s = document.createElement('div'); s.innerHTML = '<img src=x onerror=\"window.pwned = 1\">';"
        " document.body.append(s); }"
    )
    admin.wait_for_timeout(300)
    assert admin.evaluate("window.pwned") is None
    admin.problems.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "https://evil.example"}, id="another origin"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="another site"),
        pytest.param({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, id="an opaque origin"),
    ],
)
def test_forms_of_other_sites_are_refused(url: str, headers: dict[str, str]) -> None:
    for path in ("/sign-in", "/sign-out", "/change-password"):
        assert httpx.post(f"{url}{path}", data={"username": "x", "password": "y"}, headers=headers).status_code == 403
    assert httpx.get(f"{url}/_nicegui_ws/socket.io/?EIO=4&transport=polling", headers=headers).status_code == 403


def test_a_restart_of_the_registry_and_of_the_console_signs_nobody_out(
    stack: Stack, new_context: Callable[[], BrowserContext], url: str, new_person: Callable[[str], Person]
) -> None:
    page = new_context().new_page()
    sign_in(page, url, new_person("viewer"))
    page.goto(f"{url}/models")
    expect(page.locator(".c-feed")).to_have_text("Live")
    stack.restarted("registry", stack.kill("registry"))
    expect(page.locator(".c-feed")).to_have_text("Live", timeout=60_000)
    expect(page.get_by_role("row", name=DEMO)).to_be_visible()
    stack.restarted("console", stack.kill("console"))
    assert eventually(lambda: httpx.get(f"{url}/readyz").is_success)
    page.goto(f"{url}/models")
    expect(page.get_by_role("row", name=DEMO)).to_be_visible()
