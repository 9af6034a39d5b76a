"""Usage rows equal what clients were told."""

import json
from typing import Any

import httpx
import openai
import pytest

from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": DEMO, "messages": [{"role": "user", "content": "Count to twenty."}], "temperature": 0} | changes


@pytest.fixture
def key(stack: Stack) -> dict[str, str]:
    """A key of this test's own, so that its rows are too."""
    made = stack.admin("POST", "/admin/keys", {"name": "usage"}).json()
    with stack.openai(made["key"]) as client:

        def works() -> bool:
            try:
                return bool(client.models.list().data)
            except openai.AuthenticationError:
                return False

        eventually(works)
    return made


def rows(stack: Stack, key: dict[str, str], count: int) -> list[dict[str, Any]]:
    """Exactly `count` rows of the key, oldest first."""

    def enough() -> list[dict[str, Any]]:
        items = stack.admin("GET", f"/admin/usage?key_id={key['id']}").json()["items"]
        return items if len(items) >= count else []

    items = eventually(enough, timeout=15)
    assert len(items) == count
    return sorted(items, key=lambda row: row["started_at"])


def test_rows_equal_what_was_told_for_answers_and_streams(stack: Stack, key: dict[str, str]) -> None:
    told = []
    with stack.openai(key["key"]) as client:
        told.append(client.chat.completions.create(**chat(max_tokens=9)).usage)
        told.append(client.completions.create(model=DEMO, prompt="One two", max_tokens=5, temperature=0).usage)
        *_, last = client.chat.completions.create(
            **chat(max_tokens=11), stream=True, stream_options={"include_usage": True}
        )
        told.append(last.usage)
        texts = [
            choice.delta.content
            for chunk in client.chat.completions.create(**chat(max_tokens=7), stream=True)
            for choice in chunk.choices
            if choice.delta.content
        ]
    recorded = rows(stack, key, 4)
    assert [(row["prompt_tokens"], row["completion_tokens"]) for row in recorded[:3]] == [
        (usage.prompt_tokens, usage.completion_tokens) for usage in told if usage is not None
    ]
    assert recorded[3]["completion_tokens"] == 7
    assert len(texts) <= 7
    assert recorded[3]["prompt_tokens"] == recorded[0]["prompt_tokens"]
    assert {row["outcome"] for row in recorded} == {"completed"}
    assert {row["status"] for row in recorded} == {200}
    assert [row["stream"] for row in recorded] == [False, False, True, True]
    assert not any(row["estimated"] for row in recorded)


def test_a_client_that_hangs_up_pays_for_what_it_got(stack: Stack, key: dict[str, str]) -> None:
    got = 0
    with (
        httpx.Client(timeout=30) as client,
        client.stream(
            "POST",
            f"{stack.ready['gateway_url']}/v1/chat/completions",
            headers={"Authorization": f"Bearer {key['key']}"},
            json=chat(max_tokens=400, stream=True),
        ) as response,
    ):
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                got += 1
            if got == 6:
                break
    [row] = rows(stack, key, 1)
    assert row["outcome"] == "client_disconnected"
    assert got <= row["completion_tokens"] < 400
    with stack.openai(key["key"]) as client:
        usage = client.chat.completions.create(**chat(max_tokens=1)).usage
    assert usage is not None
    assert row["prompt_tokens"] == usage.prompt_tokens


def test_a_refused_request_costs_nothing(stack: Stack, key: dict[str, str]) -> None:
    with stack.openai(key["key"]) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**chat(messages=[{"role": "user", "content": "word " * 20000}]))
    with stack.openai(key["key"]) as client:
        client.chat.completions.create(**chat(max_tokens=1))
    recorded = rows(stack, key, 2)
    assert recorded[0]["status"] == 400
    assert recorded[0]["completion_tokens"] == 0
    assert recorded[0]["outcome"] != "completed"
