"""Watching: a model that fails and is mended, its log, what happens, health, hosts. Against the real stack."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cortex_testing.stack import DEMO, Stack, eventually

from .looking import serious, visit

Look = Callable[[Page, str], None]


def model_file(stack: Stack) -> Path:
    return stack.models / str(stack.model()["local_path"])


def plain(page: Page) -> None:
    """Nothing serious in either theme, without the pictures that `look` takes."""
    for theme in ("dark", "light"):
        page.get_by_role("button", name=f"Switch to {theme}").click()
        expect(page.locator(f"body.body--{theme}")).to_be_attached()
        assert serious(page) == [], theme


def made(stack: Stack, name: str, **fields: object) -> str:
    """A small model that is asked to run; its id."""
    body = {"name": name, "engine_type": "llamacpp", "context_size": 512, "parallel_slots": 1} | fields
    answer = stack.admin("POST", "/admin/models", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def mistaken(stack: Stack) -> Iterator[str]:
    """A model with an option that no llama-server has."""
    arguments = ["--no-such-option", "3"]
    model_id = made(stack, "mistaken", local_path=model_file(stack).name, extra_args=arguments)
    assert stack.admin("POST", f"/admin/models/{model_id}/start").is_success
    yield model_id
    assert stack.admin("DELETE", f"/admin/models/{model_id}").is_success


@pytest.fixture
def damaged(stack: Stack) -> Iterator[str]:
    """A model whose file lost its end after it was made."""
    path = stack.models / "damaged.gguf"
    shutil.copyfile(model_file(stack), path)
    model_id = made(stack, "damaged", local_path=path.name)
    with path.open("r+b") as file:
        file.truncate(60_000_000)
    assert stack.admin("POST", f"/admin/models/{model_id}/start").is_success
    yield model_id
    assert stack.admin("DELETE", f"/admin/models/{model_id}").is_success
    path.unlink()


def test_a_model_with_a_wrong_option_is_mended_by_a_button(
    admin: Page, stack: Stack, mistaken: str, look: Look
) -> None:
    visit(admin, "/")
    expect(admin.locator(".c-notice", has_text="mistaken failed")).to_be_visible()
    admin.locator(".c-notice", has_text="mistaken failed").get_by_role("link").click()
    repair = admin.get_by_role("alert").filter(has_text="does not know --no-such-option")
    expect(repair).to_contain_text("engine_option_unsupported")
    expect(admin.locator(".c-why").first).to_contain_text("asked it to run")
    look(admin, "model-failed")
    repair.get_by_role("button", name="Remove --no-such-option and start").click()
    dialog = admin.get_by_role("alertdialog")
    expect(dialog).to_contain_text("extra_args changes from --no-such-option 3 to nothing")
    assert serious(admin) == []
    dialog.get_by_role("button", name="Remove --no-such-option and start").click()
    expect(admin.locator(".c-model-head .c-badge")).to_have_text("running", timeout=60_000)
    expect(repair).to_be_hidden()
    assert stack.model("mistaken")["extra_args"] == []
    expect(admin.locator(".c-timeline-part.c-timeline-bad")).to_have_count(1)


def test_a_damaged_file_is_told_with_what_to_do_and_shows_its_log(
    admin: Page, operator: Page, viewer: Page, damaged: str
) -> None:
    visit(admin, f"/models/{damaged}")
    repair = admin.get_by_role("alert").filter(has_text="damaged or was not copied whole")
    expect(repair).to_contain_text("Copy or download the file again", timeout=60_000)
    expect(repair.get_by_role("button", name="Try again")).to_be_visible()
    repair.get_by_role("link", name="Read its log").click()
    expect(admin.get_by_role("log")).to_contain_text("data is not within the file bounds")
    admin.get_by_role("combobox", name="Severity").click()
    admin.get_by_role("option", name="Errors", exact=True).click()
    expect(admin.locator(".c-log-line.c-log-error:visible").first).to_be_visible()
    expect(admin.locator(".c-log-line.c-log-info:visible")).to_have_count(0)
    visit(operator, f"/models/{damaged}")
    expect(operator.get_by_role("alert").get_by_role("button", name="Try again")).to_be_visible()
    visit(viewer, f"/models/{damaged}")
    expect(viewer.get_by_role("alert")).to_contain_text("damaged")
    assert viewer.get_by_role("button", name="Try again").count() == 0
    assert viewer.get_by_role("tab", name="Logs").count() == 0


def test_the_log_of_a_running_model_is_searched_and_followed(admin: Page, stack: Stack) -> None:
    stack.ask()
    visit(admin, f"/models/{DEMO}?tab=logs")
    log = admin.get_by_role("log")
    expect(log).to_contain_text("all slots are idle")
    lines = admin.locator(".c-log-line:visible")
    eventually(lambda: lines.count() > 20, timeout=15)
    admin.get_by_label("Search the log").fill("ALL SLOTS are idle")
    expect(lines.first.locator("mark")).to_have_text("all slots are idle")
    expect(lines.filter(has_not_text="all slots are idle")).to_have_count(0)
    admin.get_by_label("Search the log").fill("")
    eventually(lambda: lines.count() > 20, timeout=15)
    before = admin.locator(".c-log-line").count()
    stack.ask()
    eventually(lambda: admin.locator(".c-log-line").count() > before, timeout=15)
    assert log.evaluate("(one) => one.scrollHeight - one.scrollTop - one.clientHeight < 30")
    log.evaluate("(one) => { one.scrollTop = 0; }")
    expect(admin.get_by_role("switch", name="Follow")).to_have_attribute("aria-checked", "false")
    with admin.expect_download() as download:
        admin.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == f"{DEMO}-0.log"
    assert "llama" in Path(download.value.path()).read_text()
    plain(admin)


def test_the_parts_of_a_running_model(admin: Page, stack: Stack) -> None:
    stack.ask()
    visit(admin, f"/models/{DEMO}")
    expect(admin.get_by_role("row", name="#0 started")).to_contain_text("healthy")
    expect(admin.locator(".c-why").first).to_contain_text("asked it to run")
    admin.get_by_role("tab", name="Requests").click()
    expect(admin.get_by_role("row", name="/v1/chat/completions").first).to_contain_text("completed")
    assert serious(admin) == []
    admin.get_by_role("tab", name="Metrics").click()
    expect(admin.get_by_role("row", name="First token")).to_be_visible()
    plain(admin)
    assert admin.url.endswith("?tab=metrics")


def test_events_come_by_themselves_and_lead_to_their_chain(admin: Page, stack: Stack) -> None:
    visit(admin, "/events")
    expect(admin.get_by_role("row", name="container.started").first).to_be_visible()
    model_id = made(stack, "fleeting", local_path=model_file(stack).name)
    row = admin.get_by_role("row", name="model.created").filter(has_text="fleeting").first
    expect(row).to_be_visible()
    assert stack.admin("DELETE", f"/admin/models/{model_id}").is_success
    expect(admin.get_by_role("row", name="model.deleted").first).to_be_visible()
    admin.get_by_role("combobox", name="Type").click()
    admin.get_by_role("option", name="Engines").click()
    expect(row).to_be_hidden()
    started = admin.get_by_role("row", name="container.started").filter(has_text=DEMO).first
    started.get_by_role("button", name="More for container.started").click()
    admin.get_by_role("listitem").filter(has_text="What led to it").click()
    dialog = admin.get_by_role("dialog")
    expect(dialog.locator(".c-chain-current")).to_contain_text("container.started")
    expect(dialog.get_by_role("listitem").first).to_contain_text("model.")
    assert serious(admin) == []
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    started.get_by_text("llamacpp-model").click()
    expect(admin.get_by_role("dialog")).to_contain_text('"replica_id"')
    admin.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_health_shows_every_endpoint_and_probes_when_asked(admin: Page, viewer: Page) -> None:
    visit(admin, "/health")
    row = admin.get_by_role("row", name=DEMO).first
    expect(row.locator(".c-badge")).to_have_text("healthy")
    admin.get_by_role("button", name="Probe all now").click()
    expect(admin.locator(".c-toast")).to_contain_text("probed now")
    row.get_by_role("button", name="More for").click()
    admin.get_by_role("listitem").filter(has_text="History").click()
    expect(admin.get_by_role("dialog")).to_contain_text("healthy")
    assert serious(admin) == []
    admin.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(admin.locator(".c-toast")).to_be_hidden()
    visit(viewer, "/health")
    expect(viewer.get_by_role("button", name="Probe all now")).to_have_attribute("aria-disabled", "true")


def test_system_shows_hosts_checks_and_throughput(viewer: Page) -> None:
    visit(viewer, "/system")
    expect(viewer.get_by_role("progressbar", name=re.compile("^Memory of .* in use"))).to_be_visible()
    expect(viewer.get_by_text(re.compile(r"\d+ of \d+ checks are fine"))).to_be_visible()
    expect(viewer.get_by_text("Models folder", exact=True)).to_be_visible()
