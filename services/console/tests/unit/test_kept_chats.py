"""Conversations are kept in the registry, and two tabs may write the same one."""

import json
from typing import Any

import httpx
import pytest

from cortex_console.adapters.admin_api import AdminApi, SessionSecrets, Visitor
from cortex_console.adapters.chats_api import ChatsApi, Kept
from cortex_console.domain.chat import Conversation, Turn, next_title
from cortex_console.errors import ConsoleError


class Registry:
    """Keeps what is put, each under its version, over a fake wire."""

    def __init__(self) -> None:
        self.chats: dict[str, dict[str, Any]] = {}
        self.lose_answer = False
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer), base_url="http://registry")
        self.api = ChatsApi(AdminApi(client, SessionSecrets("secret", "csrf"), Visitor()))

    def answer(self, request: httpx.Request) -> httpx.Response:
        chat_id = request.url.path.rpartition("/")[2]
        present = self.chats.get(chat_id)
        if request.method == "GET":
            return httpx.Response(200, json=present) if present else httpx.Response(404, json={"code": "none"})
        version = present["version"] if present else 0
        wanted = request.headers.get("if-match")
        if wanted is not None and wanted != f'"{version}"':
            return httpx.Response(412, json={"code": "precondition_failed", "detail": "changed"})
        body = json.loads(request.content)
        self.chats[chat_id] = {"id": chat_id, "version": version + 1, "title": body.pop("title"), "content": body}
        if self.lose_answer:
            self.lose_answer = False
            raise httpx.ReadTimeout("lost", request=request)
        return httpx.Response(200, json=self.chats[chat_id])

    def said(self, chat_id: str) -> list[str]:
        return [one["text"] for one in self.chats[chat_id]["content"]["messages"]]


def question(text: str) -> Turn:
    return Turn("user", text)


async def two_tabs(registry: Registry) -> tuple[Conversation, Conversation]:
    first = Conversation("c", "A lamp", models=["m"], turns=[question("one")])
    assert await registry.api.keep(first) is Kept.ITSELF
    second = await registry.api.get("c")
    assert second is not None
    return first, second


async def test_a_tab_that_comes_late_goes_on_beside_what_the_other_said() -> None:
    registry = Registry()
    first, second = await two_tabs(registry)
    first.turns.append(question("two"))
    assert await registry.api.keep(first) is Kept.ITSELF
    second.turns.append(question("three"))
    assert await registry.api.keep(second) is Kept.BRANCH
    assert registry.said("c") == ["one", "two"]
    assert registry.said(second.id) == ["one", "three"]
    assert (second.title, second.version) == ("A lamp (2)", 1)
    second.turns.append(question("four"))
    assert await registry.api.keep(second) is Kept.ITSELF


async def test_what_was_deleted_in_another_tab_is_kept_anew() -> None:
    registry = Registry()
    first, _ = await two_tabs(registry)
    registry.chats.clear()
    first.turns.append(question("two"))
    assert await registry.api.keep(first) is Kept.ANEW
    assert (first.id != "c", first.title) == (True, "A lamp")
    assert registry.said(first.id) == ["one", "two"]


async def test_an_answer_that_was_lost_makes_no_second_conversation() -> None:
    registry = Registry()
    first, _ = await two_tabs(registry)
    first.turns.append(question("two"))
    registry.lose_answer = True
    with pytest.raises(ConsoleError):
        await registry.api.keep(first)
    first.turns.append(question("three"))
    assert await registry.api.keep(first) is Kept.ITSELF
    assert registry.said("c") == ["one", "two", "three"]
    assert list(registry.chats) == ["c"]


@pytest.mark.parametrize(("title", "following"), [("A", "A (2)"), ("A (2)", "A (3)"), ("A (b)", "A (b) (2)")])
def test_a_copy_is_told_by_its_title(title: str, following: str) -> None:
    assert next_title(title) == following
