"""Organisations, users, webhooks, backups, audit, one's account, the guide; and what can be done in the list of models."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from cortex_testing.stack import DEMO, Stack

from .conftest import PASSWORD, Person, sign_in
from .looking import NARROW, fits, serious, visit

Look = Callable[[Page, str], None]


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A program that takes webhooks: its address, and the headers of what came."""
    came: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            came.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", came
    server.shutdown()
    thread.join()
    server.server_close()


def choose(page: Page, field: str, option: str) -> None:
    """In a dialog."""
    page.get_by_role("dialog").get_by_role("combobox", name=field).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_an_organisation_gets_a_user_who_signs_in(
    admin: Page, url: str, new_context: Callable[[], BrowserContext]
) -> None:
    visit(admin, "/organisations")
    admin.get_by_role("button", name="New organisation").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_label("Name").fill("default")
    dialog.get_by_role("button", name="Make").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    assert serious(admin) == []
    dialog.get_by_label("Name").fill("Research")
    dialog.get_by_role("button", name="Make").click()
    expect(admin.get_by_role("row", name="Research")).to_contain_text("no users")

    visit(admin, "/users")
    admin.get_by_role("button", name="New user").click()
    admin.get_by_label("User name").fill("bert.ohm")
    choose(admin, "Role", "Operator")
    choose(admin, "Organisation", "Research")
    assert serious(admin) == []
    admin.get_by_role("dialog").get_by_role("button", name="Make").click()
    password = admin.get_by_label("One-time password", exact=True).text_content() or ""
    assert len(password) >= 12
    admin.get_by_role("button", name="I have it").click()
    row = admin.get_by_role("row", name="bert.ohm")
    expect(row).to_contain_text("one-time password")

    theirs = new_context().new_page()
    sign_in(theirs, url, Person("bert.ohm", password))
    expect(theirs.get_by_role("heading", name="Overview")).to_be_visible()
    assert theirs.locator("nav").get_by_text("Users").count() == 0
    expect(row).to_contain_text("active")  # live: nobody reloaded this page
    theirs.context.close()
    visit(admin, "/organisations")
    admin.get_by_role("link", name="1 user").last.click()
    expect(admin.get_by_role("status").filter(has_text="1 user")).to_be_visible()


def test_a_user_is_changed_disabled_and_deleted(admin: Page, new_person: Callable[[str], Person]) -> None:
    person = new_person("viewer")
    visit(admin, "/users")
    admin.get_by_label("Search users").fill(person.username[-8:])
    row = admin.get_by_role("row", name=person.username)
    row.get_by_role("button", name="Edit").click()
    admin.get_by_label("Display name").fill("Some Body")
    admin.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("Some Body")
    row.get_by_role("button", name="More for").click()
    admin.get_by_role("listitem").filter(has_text="Disable").click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("disabled")
    row.get_by_role("button", name="More for").click()
    admin.get_by_role("listitem").filter(has_text="Delete").click()
    dialog = admin.get_by_role("alertdialog")
    expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
    dialog.get_by_label("Name").fill(person.username)
    dialog.get_by_role("button", name="Delete").click()
    expect(admin.get_by_text("Nothing matches.")).to_be_visible()


def test_a_webhook_is_made_tested_and_its_deliveries_seen(
    admin: Page, receiver: tuple[str, list[dict[str, str]]], look: Look
) -> None:
    address, came = receiver
    visit(admin, "/settings/webhooks")
    expect(admin.get_by_text("No webhooks yet")).to_be_visible()
    admin.get_by_role("button", name="New webhook").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_label("Name").fill("pager")
    dialog.get_by_label("Address").fill("ftp://nowhere")
    dialog.get_by_role("button", name="Make").click()
    expect(dialog.locator(".q-field--error")).to_have_count(1)
    dialog.get_by_label("Address").fill(address)
    dialog.get_by_role("button", name="Make").click()
    secret = admin.get_by_role("dialog", name="Secret of pager")
    expect(secret.get_by_label("Secret", exact=True)).to_contain_text("whsec_")
    secret.get_by_role("button", name="I have it").click()
    admin.get_by_role("link", name="pager").click()
    admin.get_by_role("button", name="Test").click()
    expect(admin.get_by_text("Delivered: answer 204")).to_be_visible()
    assert any(headers["webhook-signature"].startswith("v1,") for headers in came)
    row = admin.get_by_role("row", name="webhook.test")
    expect(row).to_contain_text("delivered")
    row.get_by_role("button", name="Attempts").click()
    expect(admin.get_by_role("dialog")).to_contain_text("answer 204")
    admin.get_by_role("button", name="Close").click()
    expect(admin.locator(".c-toast")).to_have_count(0)
    look(admin, "webhook")
    admin.get_by_role("button", name="Delete").click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(admin.get_by_text("No webhooks yet")).to_be_visible()


def test_an_upstream_is_registered_and_forgotten(admin: Page) -> None:
    visit(admin, "/settings/upstreams")
    admin.get_by_role("button", name="New upstream").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_label("Served name").fill("theirs")
    dialog.get_by_label("Endpoints").fill("http://169.254.169.254/latest")
    dialog.get_by_role("button", name="Register").click()
    expect(dialog.locator(".q-field--error")).to_have_count(1)
    dialog.get_by_label("Endpoints").fill("http://127.0.0.1:9")
    dialog.get_by_role("button", name="Register").click()
    row = admin.get_by_role("row", name="theirs")
    expect(row).to_contain_text("unhealthy")
    row.get_by_role("button", name="More for").click()
    admin.get_by_role("listitem").filter(has_text="Forget").click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Forget").click()
    expect(admin.get_by_text("No upstreams yet")).to_be_visible()


def test_a_backup_is_made_and_a_restore_says_why_not(admin: Page) -> None:
    visit(admin, "/settings/backups")
    admin.get_by_role("button", name="Make a backup").click()
    name = "before_the_upgrade_to_the_next_version"
    admin.get_by_role("dialog").get_by_label("Name").fill(name)
    admin.get_by_role("dialog").get_by_role("button", name="Make it").click()
    row = admin.get_by_role("row", name=name).first
    expect(row).to_contain_text("Models are asked to run")
    row.get_by_role("button", name="Details").click()
    expect(admin.get_by_role("dialog")).to_contain_text("API keys")
    admin.get_by_role("button", name="Close").click()
    row.get_by_role("button", name="More for").click()
    expect(admin.get_by_role("listitem").filter(has_text="Restore")).to_contain_text("Stop them first")
    admin.set_viewport_size(NARROW)
    visit(admin, "/settings/backups")
    expect(admin.locator(".c-row-card", has_text=name).first).to_be_visible()
    fits(admin)
    assert serious(admin) == []


def test_a_personal_token_is_shown_once_and_revoked(viewer: Page, look: Look) -> None:
    visit(viewer, "/account")
    viewer.get_by_role("button", name="New token").click()
    viewer.get_by_label("Name").fill("nightly")
    viewer.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(viewer.get_by_label("Token", exact=True)).to_contain_text("cortex-pat-")
    viewer.get_by_role("button", name="I have it").click()
    row = viewer.get_by_role("row", name="nightly")
    expect(row).to_contain_text("Viewer")
    expect(viewer.locator(".c-toast")).to_have_count(0)
    look(viewer, "account")
    viewer.get_by_role("row", name="nightly").get_by_role("button", name="Revoke").click()
    viewer.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
    expect(viewer.get_by_role("row", name="nightly")).to_have_count(0)


def test_the_audit_log_tells_and_exports(admin: Page) -> None:
    visit(admin, "/audit?kind=user")
    row = admin.get_by_role("row", name="user.create").first
    expect(row).to_be_visible()
    row.get_by_role("button", name="Details").click()
    expect(admin.get_by_role("dialog")).to_contain_text("username")
    assert serious(admin) == []
    admin.get_by_role("button", name="Close").click()
    with admin.expect_download() as download:
        admin.get_by_role("button", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("id,at,actor,action")
    assert all(",user." in line for line in lines[1:])


def test_the_guide_is_searched_and_leads_on(viewer: Page) -> None:
    visit(viewer, "/guide#failed")
    expect(viewer.get_by_role("heading", name="When a model does not start")).to_be_in_viewport()
    viewer.get_by_label("Search the guide").fill("secret backup cron")
    expect(viewer.locator(".c-guide-section:visible")).to_have_count(1)
    viewer.locator(".c-guide-section:visible").get_by_role("link").click()
    expect(viewer.get_by_role("heading", name="Backups")).to_be_visible()


def test_a_model_is_tested_restarted_cloned_archived_and_deleted(admin: Page) -> None:
    visit(admin, "/models")

    def act(name: str, word: str) -> None:
        admin.get_by_role("button", name=f"More for {name}", exact=True).click()
        admin.get_by_role("listitem").filter(has_text=word).click()

    act(DEMO, "Test")
    expect(admin.get_by_role("dialog", name=f"{DEMO} answers")).to_be_visible(timeout=60_000)
    assert serious(admin) == []
    admin.get_by_role("button", name="Close").click()
    act(DEMO, "Restart")
    question = admin.get_by_role("alertdialog")
    expect(question).to_contain_text("replaced by a new one")
    question.get_by_role("button", name="Cancel").click()
    act(DEMO, "Clone")
    admin.get_by_role("dialog").get_by_label("Name of the new model").fill("the copy")
    admin.get_by_role("dialog").get_by_role("button", name="Clone").click()
    admin.wait_for_url("**/edit")
    visit(admin, "/models")
    act("the copy", "Archive")
    expect(admin.get_by_role("alertdialog")).to_contain_text("leaves the lists")
    admin.get_by_role("alertdialog").get_by_role("button", name="Archive").click()
    row = admin.get_by_role("row", name="the copy")
    expect(row).to_have_count(0)
    admin.get_by_role("switch", name="Archived").click()
    expect(row).to_contain_text("archived")
    act("the copy", "Delete")
    admin.get_by_role("alertdialog").get_by_label("Name").fill("the copy")
    assert serious(admin) == []
    admin.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)


def test_the_list_of_models_follows_a_phone_that_turns(admin: Page) -> None:
    visit(admin, "/models")
    expect(admin.get_by_role("row", name=DEMO)).to_be_visible()
    admin.set_viewport_size({"width": 390, "height": 844})
    expect(admin.locator(".c-row-card", has_text=DEMO)).to_be_visible()
    fits(admin)
    admin.set_viewport_size({"width": 844, "height": 390})
    expect(admin.get_by_role("row", name=DEMO)).to_be_visible()


def test_a_viewer_is_shown_no_settings_of_administrators(viewer: Page, stack: Stack) -> None:
    visit(viewer, "/settings")
    tabs = viewer.get_by_role("navigation", name="Settings")
    expect(tabs.get_by_role("link")).to_have_text(["General", "Upstreams"])
    for path in ("/settings/webhooks", "/settings/backups", "/organisations", "/audit"):
        visit(viewer, path)
        expect(viewer.get_by_text("Not for your role")).to_be_visible()
    answer = viewer.request.get("/download/audit?format=csv")
    assert (answer.status, "forbidden" in answer.text()) == (403, True)
    assert PASSWORD not in stack.log.read_text()
