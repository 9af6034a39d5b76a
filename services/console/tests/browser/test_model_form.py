"""Making and changing models, the calculator and recipes, against the real stack."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cortex_testing.gguf import llama
from cortex_testing.stack import Stack, eventually

from .looking import serious, visit

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FORM = f"/models/new?path={FILE}"


@pytest.fixture
def new_models(stack: Stack) -> Iterator[None]:
    """Deletes what a test made."""
    before = {one["id"] for one in stack.admin("GET", "/admin/models").json()["items"]}
    yield
    for one in stack.admin("GET", "/admin/models").json()["items"]:
        if one["id"] not in before:
            assert stack.admin("DELETE", f"/admin/models/{one['id']}").status_code == 204
    for one in stack.admin("GET", "/admin/recipes").json()["items"]:
        assert stack.admin("DELETE", f"/admin/recipes/{one['id']}").status_code == 204


@pytest.fixture
def incomplete(stack: Stack) -> Iterator[Path]:
    """A split set that lacks a part."""
    folder = stack.models / "split"
    parts = llama(filled=True).write_split(folder, "half", 2)
    parts[1].unlink()
    yield folder
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


def made_by(page: Page) -> str:
    """The id of the model whose page this is."""
    page.wait_for_url(re.compile(r"/models/[0-9a-f-]{36}$"))
    return page.url.rpartition("/")[2]


@pytest.mark.usefixtures("new_models", "incomplete")
def test_three_clicks_from_signing_in_to_a_running_model(admin: Page, stack: Stack) -> None:
    visit(admin, "/")
    admin.get_by_role("navigation").get_by_role("link", name="Models").click()
    admin.get_by_role("link", name="New model").click()
    admin.get_by_role("button", name="Create and start Smollm2").click()
    model = made_by(admin)
    eventually(lambda: stack.model(model)["state"] == "running", timeout=90)
    visit(admin, "/models/new")
    admin.get_by_role("button", name="Look again").click()
    admin.get_by_text("1 cannot be used by itself").click()
    expect(admin.get_by_text("1 of 2 parts are missing")).to_be_visible()
    assert serious(admin) == []


@pytest.mark.usefixtures("new_models")
def test_the_form_judges_while_one_types_and_makes_a_stopped_model(admin: Page, stack: Stack) -> None:
    visit(admin, FORM)
    command = admin.locator(".mf-command")
    expect(command).to_contain_text("--ctx-size 8192")
    expect(admin.get_by_role("img", name=re.compile("Host memory.*KV cache"))).to_be_visible()
    admin.get_by_label("Name", exact=True).fill("By hand")
    admin.get_by_label("Context size, tokens").fill("a lot")
    expect(admin.get_by_text("A whole number is wanted.")).to_be_visible()
    admin.get_by_label("Context size, tokens").fill("1k")
    expect(command).to_contain_text("--ctx-size 1024")
    admin.get_by_label("Find a setting").fill("further arguments")
    admin.get_by_label("Further arguments").fill("--model other.gguf")
    expect(admin.get_by_text("'--model' is decided by Cortex and cannot be set.")).to_be_visible()
    admin.get_by_role("button", name="Create", exact=True).click()
    expect(admin.get_by_text("Correct what is marked first.")).to_be_visible()
    admin.get_by_label("Further arguments").fill("")
    expect(admin.locator(".mf-bar")).to_contain_text("Fits")
    admin.get_by_role("button", name="Create", exact=True).click()
    made = stack.model(made_by(admin))
    assert (made["name"], made["context_size"], made["state"]) == ("By hand", 1024, "stopped")


@pytest.mark.usefixtures("new_models")
def test_a_model_is_edited_with_its_changes_told_and_rolled_back(admin: Page, stack: Stack) -> None:
    body = {"name": "edited", "engine_type": "llamacpp", "local_path": FILE, "context_size": 4096}
    model = stack.admin("POST", "/admin/models", body).json()["id"]
    visit(admin, f"/models/{model}/edit")
    admin.get_by_label("Context size, tokens").fill("2048")
    expect(admin.locator(".mf-change")).to_have_text("Context size 4096 tokens → 2048 tokens")
    # Somebody else is faster.
    assert stack.admin("PATCH", f"/admin/models/{model}", {"parallel_slots": 2}).status_code == 200
    expect(admin.get_by_text("Somebody changed this model meanwhile")).to_be_visible()
    admin.get_by_role("button", name="Keep my edits on top").click()
    expect(admin.get_by_label("Parallel slots")).to_have_value("2")
    expect(admin.locator(".mf-command")).to_contain_text("--ctx-size 2048")
    admin.get_by_role("button", name="Save", exact=True).click()
    expect(admin.get_by_text("version 3")).to_be_visible()
    assert (stack.model(model)["context_size"], stack.model(model)["parallel_slots"]) == (2048, 2)
    admin.get_by_role("tab", name="Versions").click()
    admin.get_by_role("button", name="Compare version 1 with now").click()
    expect(admin.get_by_role("row", name="Context size 2048 tokens 4096 tokens")).to_be_visible()
    assert serious(admin) == []
    admin.get_by_role("button", name="Roll back to 1").click()
    expect(admin.get_by_text("version 4")).to_be_visible()
    assert stack.model(model)["context_size"] == 4096


@pytest.mark.usefixtures("new_models")
def test_settings_become_a_recipe_and_the_recipe_a_model(admin: Page, stack: Stack) -> None:
    visit(admin, f"{FORM}&context_size=2048")
    admin.get_by_role("button", name="Save as recipe").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("Small and quick")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    visit(admin, "/recipes")
    expect(admin.get_by_role("row", name="Small and quick")).to_be_visible()
    assert serious(admin) == []
    admin.get_by_role("button", name="Make a model Small and quick").click()
    expect(admin.get_by_label("Context size, tokens")).to_have_value("2048")
    admin.get_by_role("button", name="Create", exact=True).click()
    assert stack.model(made_by(admin))["context_size"] == 2048


def test_the_calculator_finds_what_fits(admin: Page, viewer: Page) -> None:
    visit(admin, "/calculator")
    admin.get_by_role("combobox", name="Hardware").click()
    admin.get_by_role("option", name="Other hardware").click()
    admin.get_by_label("GPUs", exact=True).fill("2")
    expect(admin.locator(".mb-device")).to_have_count(3)
    admin.get_by_label("Context size, tokens").fill("4096")
    expect(admin.get_by_text("Largest context that fits")).to_be_visible()
    expect(admin.get_by_text("4,096 tokens", exact=True)).to_be_visible()
    admin.get_by_role("button", name="Make a model of it").click()
    admin.wait_for_url("**/models/new**")
    expect(admin.get_by_label("Context size, tokens")).to_have_value("4096")
    visit(viewer, "/calculator")
    expect(viewer.get_by_role("button", name="Apply to a model")).to_have_attribute("aria-disabled", "true")
    visit(viewer, "/models/new")
    expect(viewer.get_by_text("This takes an administrator.")).to_be_visible()
