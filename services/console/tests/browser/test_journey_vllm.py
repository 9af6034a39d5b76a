"""The whole job of an administrator once more, with a real vLLM (cortex_testing.binaries): skipped where there is none,
unless CORTEX_REQUIRE_VLLM=1.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from cortex_testing.binaries import BinaryMissing, tiny_vllm_model, vllm
from cortex_testing.stack import Stack

from .conftest import Person, sign_in
from .journey import Journey, restart_registry

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
TINY = "tiny-llama"


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that can start a vLLM, with a model for it in its folder."""
    try:
        program, model = vllm(), tiny_vllm_model()
    except BinaryMissing as missing:
        if os.environ.get("CORTEX_REQUIRE_VLLM") == "1":
            raise
        pytest.skip(str(missing))
    made = Stack(tmp_path_factory.mktemp("console-vllm") / "home")
    made.environment["CORTEX_ORCHESTRATOR_VLLM"] = str(program)
    made.start()
    shutil.copytree(model, made.models / TINY)
    yield made
    assert made.stop(timeout=120) == 0, made.tail()


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    return str(stack.ready["console_url"])


@pytest.fixture
def viewer(browser: Browser, url: str, new_person: Callable[[str], Person]) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce", base_url=url)
    page = context.new_page()
    sign_in(page, url, new_person("viewer"))
    yield page
    context.close()


def test_an_administrator_does_the_whole_job_with_vllm(journey: Journey, viewer: Page) -> None:
    sets_it_up(journey)
    journey.loads()
    journey.chats()
    a_restart_of_the_registry_and_a_reload_lose_nothing(journey)
    journey.is_used_watched_and_deleted(viewer, requests=2, log_line="Application startup complete")


def sets_it_up(journey: Journey) -> None:
    """From the library, with what a CPU takes; a restart of the registry and a reload leave what was typed."""
    page = journey.page
    journey.go_by_navigation("Models")
    page.get_by_role("link", name="New model").click()
    page.get_by_role("link", name=f"Set up {TINY}").click()
    expect(page.locator("h1")).to_have_text("New vLLM model")
    page.get_by_label("Context length, tokens").fill("512")
    find = page.get_by_label("Find a setting")
    find.fill("dtype")
    page.get_by_role("combobox", name="Data type").click()
    page.get_by_role("option", name="float32").click()
    find.fill("enforce eager")
    page.get_by_role("switch", name="Enforce eager").click()
    find.fill("kv_cache_memory_bytes")
    page.get_by_label("KV cache memory").fill(str(64 * 1024 * 1024))
    command = page.locator(".mf-command")
    expect(command).to_contain_text("--kv-cache-memory-bytes 67108864")
    restart_registry(journey.stack, page)
    page.reload()
    for words in ("--max-model-len 512", "--dtype float32", "--enforce-eager", "--kv-cache-memory-bytes 67108864"):
        expect(command).to_contain_text(words)
    page.get_by_role("button", name="Create and start", exact=True).click()


def a_restart_of_the_registry_and_a_reload_lose_nothing(journey: Journey) -> None:
    """Of a chat, and of a question that was not sent."""
    chat = journey.page
    chat.get_by_label("Your message").fill("And then?")
    restart_registry(journey.stack, chat)
    chat.reload()
    expect(chat.locator(".pg-answer")).to_have_count(1)
    expect(chat.get_by_label("Your message")).to_have_value("And then?")
    chat.get_by_role("button", name="Send").click()
    journey.answers(2)
