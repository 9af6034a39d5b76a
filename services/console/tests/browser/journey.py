"""What an administrator does with a model from beginning to end, as steps of a test, for every engine."""

import re
from dataclasses import dataclass
from typing import Any

import httpx
import openai
from playwright.sync_api import Locator, Page, expect

from cortex_testing.stack import Stack, eventually

from .looking import serious, visit

LOAD_MS = 240_000
UNKNOWN = "--no-such-option 3"


@dataclass
class Journey:
    """What is done in turn, by an administrator in one browser, with one model."""

    page: Page
    stack: Stack
    url: str
    model: str = ""
    """Its id, once it was made."""

    @property
    def name(self) -> str:
        return str(self.stack.model(self.model)["name"])

    @property
    def served(self) -> str:
        return str(self.stack.model(self.model)["served_model_name"])

    @property
    def badge(self) -> Locator:
        return self.page.locator(".c-model-head .c-badge")

    def go(self, path: str) -> None:
        visit(self.page, f"{self.url}{path}")

    def go_by_navigation(self, name: str) -> None:
        self.page.get_by_role("navigation", name="Main").get_by_role("link", name=name, exact=True).click()
        expect(self.page.locator("h1")).to_have_text(name)
        expect(self.page.locator(".c-feed")).to_have_text("Live")

    def loads(self) -> None:
        """The page of the new model leads to a running one by itself; a reload on the way does no harm."""
        self.page.wait_for_url(re.compile(r"/models/[0-9a-f-]{36}$"))
        self.model = self.page.url.rpartition("/")[2]
        self.page.reload()
        expect(self.badge).to_have_text("running", timeout=LOAD_MS)
        expect(self.page.get_by_role("row", name="#0 started")).to_contain_text("healthy")

    def chats(self) -> None:
        self.go(f"/playground?model={self.served}")
        self.ask("Say hello.")
        assert self.answers(1)[0].strip()

    def limits_answers(self, tokens: int) -> None:
        self.page.get_by_role("button", name="Settings").click()
        self.page.get_by_label("Longest answer").fill(str(tokens))
        self.page.get_by_role("button", name="Settings").click()

    def ask(self, question: str) -> None:
        field = self.page.get_by_label("Your message")
        field.fill(question)
        field.press("Enter")

    def answers(self, number: int) -> list[str]:
        """What all of so many answers say, when the last is whole."""
        expect(self.page.locator(".pg-answer")).to_have_count(number)
        expect(self.page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)
        expect(self.page.locator(".pg-cost").last).to_contain_text("context")
        return self.page.locator(".pg-answer .c-md").all_inner_texts()

    def sees_its_usage(self, requests: int) -> None:
        self.go_by_navigation("Usage")
        breakdown = self.page.get_by_label("Breakdown", exact=True)
        expect(breakdown.get_by_role("link", name=self.served, exact=True)).to_be_visible()
        path = f"/admin/usage?model={self.served}"
        assert eventually(lambda: self.stack.admin("GET", path).json()["totals"]["requests"] >= requests)

    def makes_a_key(self) -> openai.OpenAI:
        """And uses it as a program would."""
        self.go_by_navigation("API keys")
        self.page.get_by_role("button", name="New key").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Name").fill(f"for {self.name}")
        dialog.get_by_role("button", name="Make key").click()
        secret = self.page.get_by_label("API key", exact=True).inner_text()
        self.page.get_by_role("button", name="I have it").click()
        expect(self.page.get_by_role("row", name=f"for {self.name}")).to_be_visible()
        client = openai.OpenAI(base_url=f"{self.stack.ready['gateway_url']}/v1", api_key=secret, max_retries=0)
        assert eventually(lambda: self.complete(client).choices)
        return client

    def complete(self, client: openai.OpenAI) -> Any:
        messages: Any = [{"role": "user", "content": "Hi"}]
        return client.chat.completions.create(model=self.served, messages=messages, max_tokens=4)

    def is_gone_for(self, client: openai.OpenAI) -> bool:
        """Whether the gateway refuses requests for it."""
        try:
            self.complete(client)
        except openai.APIStatusError:
            return True
        return False

    def reads_the_log(self, line: str) -> None:
        self.go(f"/models/{self.model}")
        self.page.get_by_role("tab", name="Logs").click()
        expect(self.page.get_by_role("log")).to_contain_text(line)
        self.page.reload()
        expect(self.page.get_by_role("log")).to_contain_text(line)

    def stops(self) -> None:
        self.go(f"/models/{self.model}")
        self.page.get_by_role("button", name="Stop", exact=True).click()
        dialog = self.page.get_by_role("alertdialog")
        expect(dialog).to_contain_text(f"Requests for {self.served} are refused from now on")
        dialog.get_by_role("button", name="Stop").click()
        expect(self.badge).to_have_text("stopped", timeout=60_000)

    def deletes(self) -> None:
        name = self.name
        self.page.get_by_role("button", name="More", exact=True).click()
        self.page.get_by_role("listitem").filter(has_text="Delete").click()
        dialog = self.page.get_by_role("alertdialog")
        expect(dialog).to_contain_text("This cannot be undone")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_role("button", name="Delete").click()
        self.page.wait_for_url("**/models")
        expect(self.page.locator(".c-feed")).to_have_text("Live")
        expect(self.page.get_by_role("row", name=name, exact=True)).to_have_count(0)
        assert self.stack.admin("GET", f"/admin/models/{self.model}").status_code == 404

    def fails_and_is_mended(self) -> None:
        """A start that fails tells why, and a button mends it."""
        page = self.page
        page.get_by_role("button", name="Edit", exact=True).click()
        page.wait_for_url("**/edit")
        page.get_by_label("Find a setting").fill("further arguments")
        page.get_by_label("Further arguments").fill(UNKNOWN)
        expect(page.locator(".mf-change")).to_contain_text(UNKNOWN)
        page.get_by_role("button", name="Save and start").click()
        expect(page.locator(".c-toast").filter(has_text="Saved and starting.")).to_be_visible()
        self.go(f"/models/{self.model}")
        repair = page.get_by_role("alert").filter(has_text="does not know --no-such-option")
        expect(repair).to_contain_text("engine_option_unsupported", timeout=LOAD_MS)
        page.reload()
        expect(repair).to_contain_text("engine_option_unsupported")
        assert serious(page) == []
        repair.get_by_role("button", name="Remove --no-such-option and start").click()
        page.get_by_role("alertdialog").get_by_role("button", name="Remove --no-such-option and start").click()
        expect(self.badge).to_have_text("running", timeout=LOAD_MS)
        expect(repair).to_be_hidden()

    def is_refused_to(self, viewer: Page) -> None:
        """They see it; no button changes it, and without a button the registry refuses."""
        visit(viewer, f"/models/{self.model}")
        expect(viewer.locator(".c-model-head .c-badge")).to_have_text("running")
        for button in ("Stop", "Restart", "Test", "Edit", "More"):
            assert viewer.get_by_role("button", name=button, exact=True).count() == 0, button
        visit(viewer, f"/models/{self.model}/edit")
        expect(viewer.get_by_text("Not for your role")).to_be_visible()
        visit(viewer, "/models/new")
        expect(viewer.get_by_text("Not for your role")).to_be_visible()
        cookies = {cookie["name"]: cookie["value"] for cookie in viewer.context.cookies()}
        with httpx.Client(
            base_url=str(self.stack.ready["registry_url"]),
            cookies={"cortex_session": cookies["cortex_console_session"]},
            headers={"X-CSRF-Token": cookies["cortex_console_csrf"]},
        ) as theirs:
            mine = f"/admin/models/{self.model}"
            refused = [theirs.post(f"{mine}/stop"), theirs.patch(mine, json={"name": "x"}), theirs.delete(mine)]
        assert [answer.status_code for answer in refused] == [403, 403, 403]

    def is_used_watched_and_deleted(self, viewer: Page, *, requests: int, log_line: str) -> None:
        """All that follows the first chats."""
        self.sees_its_usage(requests)
        client = self.makes_a_key()
        self.reads_the_log(log_line)
        self.is_refused_to(viewer)
        self.stops()
        assert eventually(lambda: self.is_gone_for(client))
        client.close()
        self.fails_and_is_mended()
        self.stops()
        self.deletes()


def restart_registry(stack: Stack, *pages: Page) -> None:
    """Kill it; open pages notice, and come back by themselves."""
    old = stack.kill("registry")
    for page in pages:
        expect(page.locator(".c-feed")).to_have_text("Reconnecting")
    stack.restarted("registry", old)
    for page in pages:
        expect(page.locator(".c-feed")).to_have_text("Live", timeout=60_000)
