"""Playground, API keys and usage against the real stack: a running model, the gateway, the registry."""

import csv
import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from cortex_testing.stack import DEMO, Stack, eventually

from .conftest import Person, sign_in
from .looking import serious, visit

Look = Callable[[Page, str], None]
LONG = "Write a very long story about a lighthouse, a storm and a ship. Do not stop before 900 words."


def user_id(stack: Stack, username: str) -> str:
    users = stack.admin("GET", "/admin/users").json()["items"]
    return str(next(user["id"] for user in users if user["username"] == username))


def keys_of(stack: Stack, owner: str, state: str = "active") -> list[dict[str, Any]]:
    found = stack.admin("GET", f"/admin/keys?user={owner}&state={state}&limit=1000").json()["items"]
    return list(found)


def ask(page: Page, question: str) -> None:
    field = page.get_by_label("Your message")
    field.fill(question)
    field.press("Enter")


def answered(page: Page, number: int) -> str:
    """What the last of so many answers says, when it is whole."""
    expect(page.locator(".pg-answer")).to_have_count(number)
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)
    expect(page.locator(".pg-cost").last).to_contain_text("context")
    return page.locator(".pg-answer .c-md").last.inner_text()


@contextmanager
def served(stack: Stack, name: str, **settings: object) -> Generator[str]:
    """The demo's file once more, as a model for something else than chat."""
    demo = stack.admin("GET", f"/admin/models/{DEMO}").json()
    body = {
        "name": name,
        "engine_type": "llamacpp",
        "local_path": demo["local_path"],
        "context_size": 512,
        "parallel_slots": 1,
    }
    made = stack.admin("POST", "/admin/models", body | settings)
    assert made.status_code == 201, made.text
    path = f"/admin/models/{made.json()['id']}"
    assert stack.admin("POST", f"{path}/start").is_success
    assert eventually(lambda: stack.admin("GET", path).json()["state"] == "running")
    yield str(made.json()["served_model_name"])
    assert stack.admin("DELETE", path).is_success


@pytest.fixture
def embedder(stack: Stack) -> Iterator[str]:
    with served(stack, "embedder", task="embed", pooling="mean") as name:
        yield name


@pytest.fixture
def reranker(stack: Stack) -> Iterator[str]:
    """Its scores say nothing, as the file was not trained for them; everything else is as with a real one."""
    with served(stack, "reranker", task="rerank") as name:
        yield name


def test_a_chat_streams_stops_and_is_still_there_in_another_browser(
    admin: Page, stack: Stack, new_context: Callable[[], BrowserContext], url: str, look: Look
) -> None:
    visit(admin, "/playground")
    ask(admin, "Say hello.")
    answer = answered(admin, 1)
    assert answer.strip()
    expect(admin.locator(".pg-cost").last).to_contain_text("first token")
    ask(admin, LONG)
    expect(admin.locator(".pg-answer .c-md").last).not_to_be_empty()  # it streams: the answer is not whole yet
    admin.get_by_role("button", name="Stop").click()
    expect(admin.locator(".pg-cost").last).to_contain_text("Stopped")
    admin.reload()
    expect(admin.locator(".pg-answer")).to_have_count(2)
    assert admin.locator(".pg-answer .c-md").first.inner_text() == answer
    expect(admin.locator(".pg-cost").last).to_contain_text("Stopped")
    expect(admin.locator(".pg-history-item", has_text="Say hello.")).to_be_visible()
    look(admin, "playground")
    other = new_context().new_page()
    other.context.add_cookies(admin.context.cookies())  # type: ignore[arg-type]
    other.goto(f"{url}{admin.url.removeprefix(url)}")
    expect(other.locator(".pg-answer")).to_have_count(2)
    owner = user_id(stack, "the-admin")
    assert [key["name"] for key in keys_of(stack, owner)].count("Playground") == 1
    spent = eventually(lambda: stack.admin("GET", f"/admin/usage?user={owner}").json()["totals"]["requests"] >= 2)
    assert spent


def test_two_models_answer_beside_each_other_and_a_conversation_is_deleted(admin: Page) -> None:
    visit(admin, "/playground")
    admin.get_by_role("button", name="Compare").click()
    admin.get_by_role("button", name="Settings").click()
    admin.get_by_label("Longest answer").fill("8")
    ask(admin, "Compare me")
    answered(admin, 2)
    assert serious(admin) == []
    admin.get_by_role("button", name="Copy as code").click()
    dialog = admin.get_by_role("dialog")
    expect(dialog).to_contain_text("max_tokens")
    assert "sk-cortex" not in dialog.inner_text()
    assert serious(admin) == []
    dialog.get_by_role("button", name="Close").click()
    admin.get_by_role("button", name="Delete Compare me").click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(admin.locator(".pg-history-item", has_text="Compare me")).to_have_count(0)
    expect(admin.locator(".pg-answer")).to_have_count(0)


def test_embeddings_are_compared(admin: Page, embedder: str, look: Look) -> None:
    visit(admin, "/playground?tab=embed")
    expect(admin.get_by_role("combobox", name="Model")).to_be_visible()
    admin.get_by_role("button", name="Embed", exact=True).click()
    expect(admin.get_by_role("heading", name="3 vectors of 576 numbers")).to_be_visible()
    expect(admin.locator(".pg-matrix td").first).to_have_text("1.000")
    assert serious(admin) == []
    visit(admin, "/playground?tab=rerank")
    expect(admin.get_by_text("No reranking model is running")).to_be_visible()


def test_documents_are_ranked(admin: Page, reranker: str) -> None:
    visit(admin, "/playground?tab=rerank")
    expect(admin.get_by_role("combobox", name="Model")).to_have_value(re.compile(f"^{reranker} "))
    admin.get_by_label("Documents, one a line").fill("A lighthouse.\nSoup.\nA chart.\nA lamp.")
    admin.locator(".c-dialog-foot").get_by_role("button", name="Rerank").click()
    expect(admin.get_by_role("heading", name="Best first")).to_be_visible()
    ranks = admin.locator(".pg-rank")
    expect(ranks).to_have_count(4)
    told = [rank.locator("span").all_inner_texts() for rank in ranks.all()]
    assert {document for document, _ in told} == {"A lighthouse.", "Soup.", "A chart.", "A lamp."}
    scores = [float(score) for _, score in told]
    assert scores == sorted(scores, reverse=True)
    assert serious(admin) == []


def test_a_conversation_in_two_tabs_loses_nothing(admin: Page) -> None:
    visit(admin, "/playground")
    admin.get_by_role("button", name="Settings").click()
    admin.get_by_label("Longest answer").fill("8")
    ask(admin, "Two tabs")
    answered(admin, 1)
    other = admin.context.new_page()
    visit(other, admin.url)
    expect(other.locator(".pg-answer")).to_have_count(1)
    ask(admin, "From the first tab")
    answered(admin, 2)
    ask(other, "From the second tab")
    answered(other, 2)
    expect(other.get_by_text("This conversation went on in another tab.")).to_be_visible()
    assert other.url != admin.url
    for page, said in ((admin, "From the first tab"), (other, "From the second tab")):
        page.reload()
        expect(page.locator(".pg-answer")).to_have_count(2)
        expect(page.locator(".pg-question-text", has_text=said)).to_be_visible()
    expect(admin.locator(".pg-history-item", has_text="Two tabs (2)")).to_be_visible()
    other.close()


def test_a_key_is_made_used_seen_in_usage_rotated_and_revoked(
    admin: Page, stack: Stack, look: Look, tmp_path: Path
) -> None:
    visit(admin, "/keys")
    admin.get_by_role("button", name="New key").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_role("button", name="Make key").click()
    expect(dialog.get_by_text("Name is missing.")).to_be_visible()
    assert serious(admin) == []
    dialog.get_by_label("Name").fill("journey")
    dialog.get_by_label("Requests per minute").fill("60")
    dialog.get_by_role("button", name="Make key").click()
    secret = admin.get_by_label("API key", exact=True).inner_text()
    admin.get_by_role("button", name="I have it").click()
    row = admin.get_by_role("row", name="journey")
    expect(row).to_contain_text("60 requests/min")
    expect(admin.get_by_label("API key", exact=True)).to_have_count(0)  # an event may have brought the row before
    assert secret not in admin.content()
    client = openai.OpenAI(base_url=f"{stack.ready['gateway_url']}/v1", api_key=secret, max_retries=0)
    chat = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    assert eventually(lambda: client.chat.completions.create(**chat).choices)  # type: ignore[call-overload]
    key_id = next(key["id"] for key in stack.admin("GET", "/admin/keys?q=journey").json()["items"])
    assert eventually(lambda: stack.admin("GET", f"/admin/keys/{key_id}").json()["last_used_at"])
    visit(admin, "/keys")
    expect(row.locator("time")).to_have_attribute("title", re.compile("UTC$"))
    look(admin, "keys")
    row.get_by_role("button", name="More for journey").click()
    admin.get_by_role("listitem").filter(has_text="Usage").click()
    admin.wait_for_url("**/usage?**")
    expect(admin.get_by_label("Requests", exact=True).get_by_text(DEMO).first).to_be_visible()
    look(admin, "usage")
    with admin.expect_download() as downloading:
        admin.get_by_role("link", name="Download CSV").click()
    downloading.value.save_as(tmp_path / "usage.csv")
    records = list(csv.DictReader(io.StringIO((tmp_path / "usage.csv").read_text())))
    assert {record["model"] for record in records} == {DEMO}
    visit(admin, "/keys")
    row.get_by_role("button", name="More for journey").click()
    admin.get_by_role("listitem").filter(has_text="Revoke").click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)

    def refused() -> bool:
        try:
            client.chat.completions.create(**chat)  # type: ignore[call-overload]
        except openai.AuthenticationError:
            return True
        return False

    assert eventually(refused)


def test_usage_is_filtered_broken_down_and_empty_in_words(admin: Page) -> None:
    visit(admin, "/usage?range=7d")
    expect(admin.get_by_label("Breakdown", exact=True).get_by_role("link", name=DEMO, exact=True)).to_be_visible()
    admin.get_by_role("combobox", name="Broken down by").click()
    admin.get_by_role("option", name="Outcome").click()
    expect(admin.get_by_label("Breakdown", exact=True).get_by_text("completed")).to_be_visible()
    admin.get_by_role("combobox", name="Status").click()
    admin.get_by_role("option", name="Over a limit").click()
    expect(admin.get_by_role("heading", name="No requests")).to_be_visible()
    assert "status=429" in admin.url
    assert serious(admin) == []
    admin.get_by_role("button", name="Clear").click()
    expect(admin.get_by_label("Requests", exact=True).get_by_text(DEMO).first).to_be_visible()


def test_a_viewer_has_own_keys_alone_and_uses_the_playground(viewer: Page, stack: Stack) -> None:
    visit(viewer, "/keys")
    expect(viewer.get_by_role("button", name="All keys")).to_have_count(0)
    viewer.get_by_role("button", name="New key").click()
    viewer.get_by_role("dialog").get_by_label("Name").fill("of my own")
    viewer.get_by_role("button", name="Make key").click()
    viewer.get_by_role("button", name="I have it").click()
    row = viewer.get_by_role("row", name="of my own")
    row.get_by_role("button", name="Rename of my own").click()
    viewer.get_by_role("dialog").get_by_label("Name").fill("renamed")
    viewer.get_by_role("button", name="Save").click()
    row = viewer.get_by_role("row", name="renamed")
    row.get_by_role("button", name="More for renamed").click()
    viewer.get_by_role("listitem").filter(has_text="Rotate").click()
    viewer.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    viewer.get_by_role("button", name="I have it").click()
    owner = user_id(stack, "the-viewer")
    assert len([key for key in keys_of(stack, owner) if key["name"] == "renamed"]) == 2
    visit(viewer, f"/playground?model={DEMO}")
    ask(viewer, "Hello")
    assert answered(viewer, 1)


def test_signing_out_revokes_the_key_of_the_playground(
    guest: Page, stack: Stack, url: str, new_person: Callable[[str], Person]
) -> None:
    person = new_person("operator")
    sign_in(guest, url, person)
    visit(guest, f"{url}/playground")
    ask(guest, "Hello")
    answered(guest, 1)
    owner = user_id(stack, person.username)
    assert [key["name"] for key in keys_of(stack, owner)] == ["Playground"]
    guest.get_by_role("button", name=f"Account of {person.username}").click()
    guest.get_by_text("Sign out").click()
    guest.wait_for_url("**/sign-in?reason=out")
    assert keys_of(stack, owner) == []
    assert len(keys_of(stack, owner, "revoked")) == 1
