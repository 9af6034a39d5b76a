"""The playground: what is sent, what is shown, what is never trusted."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from typing import Any

import httpx
import pytest

from cortex_console.adapters.admin_api import AdminApi, SessionSecrets, Visitor
from cortex_console.adapters.playground_gateway import PlaygroundGateway
from cortex_console.adapters.playground_keys import NAME, PlaygroundKeys
from cortex_console.components.markdown import MAX_COLOURED, render
from cortex_console.domain.answering import Answering, UnderWay
from cortex_console.domain.chat import (
    Conversation,
    Turn,
    chat_body,
    delta_of,
    parameters_of,
    title_of,
    without_last_answer,
)
from cortex_console.domain.chat_words import cost_text
from cortex_console.domain.play_models import PlayModel, choices, context_of
from cortex_console.domain.similarity import cosine, preview, similarities, texts_of
from cortex_console.domain.snippets import KEY_VARIABLE, curl, python_chat, python_embeddings, python_rerank
from cortex_console.errors import ConsoleError

NASTY = 'it\'s "$(touch /tmp/pwned)" `id` \\ \n${HOME} </script>'


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "hello <b onclick='x()'>you</b>",
        "```html\n<script>alert(1)</script>\n```",
        "    <iframe src=//evil.example></iframe>",
        "```<script>\nx\n```",
        "`<svg onload=1>`",
    ],
)
def test_raw_html_of_a_model_stays_text(text: str) -> None:
    html = render(text)
    for tag in ("<script", "<img", "<iframe", "<svg", "<b "):
        assert tag not in html
    assert "&lt;" in html


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "vbscript:x", "data:text/html,<script>1</script>", "file:///etc"]
)
def test_links_lead_to_pages_alone(address: str) -> None:
    assert "href" not in render(f"[click me]({address})")


def test_images_are_not_fetched_and_plain_links_stay() -> None:
    assert "<img" not in render("![secret](https://evil.example/x.png?leak)")
    assert '<a href="https://example.com">there</a>' in render("[there](https://example.com)")


def test_code_is_coloured_when_it_is_whole_and_short_enough() -> None:
    code = "```python\ndef add(a, b):\n    return a + b\n```"
    assert 'class="c-k-k"' in render(code)
    assert "c-k-k" not in render(code, colours=False)
    assert "c-k-k" not in render(f"```python\n{'x = 1 # ' + 'a' * MAX_COLOURED}\n```")
    assert "no-such-language" in render("```no-such-language\nx\n```")


def test_a_model_is_asked_with_its_own_answers_and_without_failed_questions() -> None:
    turns = [
        Turn("user", "one"),
        Turn("assistant", "A1", side=0),
        Turn("assistant", "B1", side=1),
        Turn("user", "never answered"),
        Turn("assistant", "", side=0, error="broke"),
        Turn("user", "two"),
    ]
    conversation = Conversation("c", system="Be brief.", turns=turns)
    assert [(one["role"], one["content"]) for one in conversation.sent(1)] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "B1"),
        ("user", "two"),
    ]


def test_a_conversation_comes_back_as_it_was_stored() -> None:
    turns = [Turn("user", "hi"), Turn("assistant", "", 1, "m", stopped=True, prompt_tokens=3, completion_tokens=2)]
    before = Conversation("c", "Title", 1, ["m", "n"], "sys", {"temperature": 0.0, "seed": 7}, turns)
    stored = before.stored()
    answer = {"id": "c", "title": "Title", "version": 1, "content": {n: v for n, v in stored.items() if n != "title"}}
    assert Conversation.of(answer) == before
    assert stored["messages"][0] == {"role": "user", "text": "hi"}


def test_parameters_left_open_are_the_model_s_own() -> None:
    given = parameters_of({"temperature": 0.0, "top_p": None, "max_tokens": 12.0, "seed": "", "other": 1})
    assert given == {"temperature": 0.0, "max_tokens": 12}
    body = chat_body("m", [{"role": "user", "content": "x"}], given | {"stop": []})
    assert body["stream_options"] == {"include_usage": True}
    assert "stop" not in body
    assert body["max_tokens"] == 12


@pytest.mark.parametrize(
    ("data", "text", "error"),
    [
        ('{"choices":[{"delta":{"content":"Hi"}}]}', "Hi", ""),
        ('{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', "", ""),
        ('{"error":{"message":"The engine died.","code":"x"}}', "", "The engine died."),
        ("not json", "", ""),
        ("[1]", "", ""),
        ('{"choices":[{"delta":null}]}', "", ""),
    ],
)
def test_an_event_adds_what_it_says(data: str, text: str, error: str) -> None:
    delta = delta_of(data)
    assert (delta.text, delta.error) == (text, error)


def test_what_an_answer_cost_is_said_in_words() -> None:
    turn = Turn("assistant", "x", 0, "m", prompt_tokens=100, completion_tokens=51, ttft_ms=500, duration_ms=1500)
    assert cost_text(turn, 1000) == (
        "50.0 tok/s · first token 500 ms · 51 tokens in 1.5 s · context 151 of 1,000 (15%)"
    )
    assert cost_text(Turn("assistant", "", stopped=True), None) == "Stopped"
    assert Turn("assistant", "x", completion_tokens=1, ttft_ms=5, duration_ms=5).tokens_per_second is None


def test_titles_and_last_answers() -> None:
    assert title_of("  a\n b ") == "a b"
    assert len(title_of("word " * 40)) <= 60
    turns = [Turn("user", "q"), Turn("assistant", "a", 0), Turn("assistant", "b", 1)]
    assert without_last_answer(turns) == turns[:1]


def test_models_are_offered_by_task_and_state() -> None:
    answers: list[dict[str, Any]] = [
        {"served_model_name": "a", "engine_type": "llamacpp", "task": "generate", "state": "running", "context_size": 8192, "parallel_slots": 4},
        {"served_model_name": "b", "engine_type": "vllm", "task": "generate", "state": "failed", "max_model_len": 4096},
        {"served_model_name": "c", "engine_type": "llamacpp", "task": "embed", "state": "degraded",
         "replica_status": [{"load": {"context_per_slot": 512}}, {"load": None}], "context_size": 1},
    ]  # fmt: skip
    models = [PlayModel.of(answer) for answer in answers]
    assert choices(models, "generate") == {"a": "a · llama.cpp"}
    assert choices(models, "generate", "b") == {"a": "a · llama.cpp", "b": "b (failed)"}
    assert choices(models, "generate", "z")["z"] == "z (gone)"
    assert [context_of(models, name) for name in ("a", "b", "c", "z")] == [2048, 4096, 512, None]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 0], [0, 1], 0.0),
        ([1, 2], [2, 4], 1.0),
        ([1, 0], [-1, 0], -1.0),
        ([0, 0], [1, 1], None),
        ([1], [1, 2], None),
        ([], [], None),
    ],
)
def test_cosine(one: list[float], other: list[float], expected: float | None) -> None:
    found = cosine(one, other)
    assert found == (None if expected is None else pytest.approx(expected))


def test_similarities_and_previews() -> None:
    assert similarities([[1, 0], [0, 2]]) == [[pytest.approx(1), 0], [0, pytest.approx(1)]]
    assert preview([0.123456, 1], 1) == "[0.1235, …]"
    assert texts_of(" a \n\n b") == ["a", "b"]


def test_a_shell_runs_nothing_of_a_snippet_and_gets_the_body_whole(tmp_path: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": NASTY}]}
    text = curl("http://gateway:8080", "/chat/completions", body)
    assert f"${KEY_VARIABLE}" in text
    fake = tmp_path / "curl"
    fake.write_text(f"#!{shlex.quote(sys.executable)}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", KEY_VARIABLE: "k"}
    run = subprocess.run(["sh", "-c", text], env=environment, capture_output=True, text=True, check=True)
    arguments: list[str] = json.loads(run.stdout)
    assert arguments[0] == "http://gateway:8080/v1/chat/completions"
    assert "Authorization: Bearer k" in arguments
    assert json.loads(arguments[-1]) == body


def test_python_snippets_are_python_whatever_they_hold() -> None:
    body = {"model": NASTY, "messages": [{"role": "user", "content": NASTY}], "stream": True, "temperature": 0.5}
    for text in (
        python_chat("http://g", body),
        python_embeddings("http://g", {"model": "m", "input": [NASTY]}),
        python_rerank("http://g", {"model": "m", "query": NASTY, "documents": []}),
    ):
        compile(text, "snippet", "exec")
        assert KEY_VARIABLE in text
        assert "sk-cortex" not in text


class Installation:
    """A registry that makes keys and a gateway that knows them a moment later, over a fake wire."""

    def __init__(self, *, unknown: int = 0, live: int = 0) -> None:
        self.made = 0
        self.revoked: list[str] = []
        self.unknown = unknown
        self.live = live
        self.keys = PlaygroundKeys()
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer), base_url="http://both")

    def api(self, session: str = "session-secret-1") -> AdminApi:
        return AdminApi(self.client, SessionSecrets(session, "csrf"), Visitor())

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/"):
            self.unknown -= 1
            if self.unknown >= 0:
                return httpx.Response(401, json={"error": {"message": "no such key", "code": "invalid_api_key"}})
            return httpx.Response(200, json={"by": request.headers["authorization"]})
        if request.method == "GET":
            return httpx.Response(200, json={"items": [{"id": f"old{n}", "name": NAME} for n in range(self.live)]})
        if request.method == "DELETE":
            self.revoked.append(request.url.path.rpartition("/")[2])
            return httpx.Response(204)
        self.made += 1
        return httpx.Response(201, json={"id": f"k{self.made}", "key": f"sk-{self.made}"})


async def test_a_session_has_one_key_of_the_playground_and_loses_it_at_its_end() -> None:
    there = Installation()
    gateway = PlaygroundGateway(there.client, there.keys, there.api())
    answers = await asyncio.gather(*(gateway.post("/embeddings", {}) for _ in range(4)))
    assert {answer["by"] for answer in answers} == {"Bearer sk-1"}
    other = PlaygroundGateway(there.client, there.keys, there.api("session-secret-2"))
    assert (await other.post("/embeddings", {}))["by"] == "Bearer sk-2"
    await there.keys.end(there.api())
    assert there.revoked == ["k1"]
    await there.keys.end(there.api())
    assert there.revoked == ["k1"]
    assert "sk-" not in repr(await there.keys.key(there.api()))


async def test_keys_that_were_left_behind_do_not_use_up_what_a_user_may_have() -> None:
    there = Installation(live=5)
    await there.keys.key(there.api())
    assert there.revoked == ["old0", "old1", "old2"]


async def test_a_key_that_is_just_made_is_waited_for() -> None:
    there = Installation(unknown=2)
    answer = await PlaygroundGateway(there.client, there.keys, there.api()).post("/embeddings", {})
    assert answer["by"] == "Bearer sk-1"


async def test_a_key_that_was_revoked_is_replaced() -> None:
    there = Installation(unknown=0)
    now = [0.0]
    there.keys = PlaygroundKeys(clock=lambda: now[0] - 1000)
    gateway = PlaygroundGateway(there.client, there.keys, there.api())
    await gateway.post("/embeddings", {})
    there.unknown = 1
    assert (await gateway.post("/embeddings", {}))["by"] == "Bearer sk-2"


async def test_a_refusal_of_the_registry_is_told_as_it_is() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"items": []})
        return httpx.Response(403, json={"code": "self_service_off", "detail": "Users make no keys here."})

    client = httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="http://both")
    api = AdminApi(client, SessionSecrets("session-secret-1", "c"), Visitor())
    with pytest.raises(ConsoleError) as caught:
        await PlaygroundGateway(client, PlaygroundKeys(), api).post("/embeddings", {})
    assert caught.value.code == "self_service_off"


def test_an_answer_that_comes_is_found_by_its_user_and_goes_on_while_anybody_watches() -> None:
    under_way, stopped = UnderWay(), []
    coming = [Turn("assistant", "Once", model="m")]
    asked = Conversation("c1", turns=[Turn("user", "Tell me")])
    answering = Answering(asked, lambda: coming, lambda: stopped.append(True))
    end = under_way.begin("ada", answering)
    assert under_way.find("ada", "c1") is answering
    assert under_way.find("bob", "c1") is None
    answering.watchers += 1
    answering.leave()
    assert stopped == []
    asked.turns += coming
    assert answering.copy().turns == [Turn("user", "Tell me")], "its answer is still drawn as it comes"
    end()
    assert under_way.find("ada", "c1") is None
    copy = answering.copy()
    assert copy.turns == asked.turns
    copy.turns.clear()
    assert len(asked.turns) == 2
    answering.leave()
    assert stopped == [True]


def test_another_answer_in_the_same_conversation_is_not_ended_by_the_first() -> None:
    under_way, asked = UnderWay(), Conversation("c1")
    end_first = under_way.begin("ada", Answering(asked, list, list))
    second = Answering(asked, list, list)
    under_way.begin("ada", second)
    end_first()
    assert under_way.find("ada", "c1") is second
