"""Every route through a real gateway to real engines of both kinds, beside the engines themselves."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_contracts.enums import EngineType, Task
from cortex_testing.binaries import BinaryMissing, tiny_vllm_model
from cortex_testing.binaries import vllm as vllm_program
from cortex_testing.client_scenarios import SCENARIOS, Clients, differences
from cortex_testing.gateway_world import EngineProcess, GatewayBefore, llama, vllm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

EXPECTED: dict[str, dict[str, dict[str, list[Any]]]] = json.loads(
    (Path(__file__).parent / "data" / "client_differences.json").read_text()
)
"""Engine type -> scenario -> member -> [what the engine gives, what the gateway makes of it]."""
CHAT = [{"role": "user", "content": "Say hello to Anna."}]


@dataclass
class Surface:
    """One kind of engine, three tasks, and the gateway before them."""

    engines: dict[Task, EngineProcess]
    gateway: GatewayBefore
    direct: Clients
    through: Clients

    @property
    def engine_type(self) -> EngineType:
        return self.engines[Task.GENERATE].engine_type

    def name(self, task: Task) -> str:
        return self.engines[task].name

    def post(self, path: str, body: object, *, key: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.gateway.key}"}
        return self.through.http.post(f"{self.gateway.url}{path}", json=body, headers=headers, timeout=60)

    def ask(self, path: str, task: Task, **fields: object) -> Any:
        """The body of a success."""
        response = self.post(path, {"model": self.name(task), **fields})
        assert response.status_code == 200, response.text
        return response.json()


def _engines(kind: str, secret: str, binary: Path, gguf: Path) -> dict[Task, EngineProcess]:
    if kind == "llamacpp":
        return {task: llama(binary, gguf, task, secret) for task in Task}
    try:
        program, model = vllm_program(), tiny_vllm_model()
    except BinaryMissing as missing:
        if os.environ.get("CORTEX_REQUIRE_VLLM") == "1":
            raise
        pytest.skip(str(missing))
    return {task: vllm(program, model, task, secret) for task in Task}


@pytest.fixture(scope="module", params=["llamacpp", pytest.param("vllm", marks=pytest.mark.vllm)])
def surface(
    request: pytest.FixtureRequest,
    llama_server_binary: Path,
    smollm2_gguf: Path,
    secret_key: str,
    nats_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Surface]:
    engines = _engines(request.param, secret_key, llama_server_binary, smollm2_gguf)
    gateway = GatewayBefore(nats_url, secret_key, tmp_path_factory.mktemp("surface"), upstream_passthrough="true")
    clients: list[Clients] = []
    try:
        for engine in engines.values():
            engine.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(EngineProcess.wait, engines.values()))
        gateway.start(engines.values())
        chat, embed = engines[Task.GENERATE], engines[Task.EMBED]
        repeatable = {"cache_prompt": False} if request.param == "llamacpp" else {}
        direct = Clients(chat.url, chat.key, chat.name, embedder=(embed.url, embed.key, embed.name), extra=repeatable)
        through = Clients(
            gateway.url, gateway.key, chat.name, embedder=(gateway.url, gateway.key, embed.name), extra=repeatable
        )
        clients += [direct, through]
        yield Surface(engines, gateway, direct, through)
    finally:
        for client in clients:
            client.close()
        gateway.close()
        for engine in engines.values():
            engine.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_clients_see_the_same_through_the_gateway_but_for_what_is_levelled(surface: Surface, name: str) -> None:
    scenario = SCENARIOS[name]
    found = differences(scenario(surface.direct), scenario(surface.through))
    expected = EXPECTED[surface.engine_type.value].get(name, {})
    assert json.loads(json.dumps(found)) == expected


def test_an_alias_is_answered_under_the_name_that_was_asked(surface: Surface) -> None:
    alias = f"{surface.name(Task.GENERATE)}-alias"
    whole = surface.post("/v1/chat/completions", {"model": alias, "messages": CHAT, "max_tokens": 2}).json()
    assert whole["model"] == alias
    asked = {"model": alias, "messages": CHAT, "max_tokens": 2, "stream": True}
    stream = surface.post("/v1/chat/completions", asked).text
    models = {json.loads(line[6:])["model"] for line in stream.splitlines() if line.startswith("data: {")}
    assert models == {alias}
    message = surface.post("/v1/messages", {"model": alias, "messages": CHAT, "max_tokens": 2}).json()
    assert message["model"] == alias


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_documents_are_ranked_in_one_shape(surface: Surface, path: str) -> None:
    documents = ["a dog", {"text": "Anna has a cat that sleeps."}, "nothing of the kind"]
    answer = surface.ask(path, Task.RERANK, query="cat", documents=documents, top_n=2, return_documents=True)
    scores = [result["relevance_score"] for result in answer["results"]]
    assert answer.keys() == {"id", "object", "model", "results", "usage"}
    assert answer["model"] == surface.name(Task.RERANK)
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2
    for result in answer["results"]:
        given = documents[result["index"]]
        assert result["document"] == {"text": given if isinstance(given, str) else given["text"]}
    assert answer["usage"]["total_tokens"] > 3
    plain = surface.ask(path, Task.RERANK, query="cat", documents=["a", "b"])
    assert [result.keys() for result in plain["results"]] == [{"index", "relevance_score"}] * 2


def test_ranking_needs_a_model_for_it_and_texts(surface: Surface) -> None:
    wrong = surface.post("/v1/rerank", {"model": surface.name(Task.GENERATE), "query": "q", "documents": ["a"]})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "model_task_mismatch")
    for documents in ([], "text", [1], [{"no": "text"}]):
        refused = surface.post("/rerank", {"model": surface.name(Task.RERANK), "query": "q", "documents": documents})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize("member", ["prompt", "content"])
def test_a_text_is_tokenised_and_put_together_again(surface: Surface, member: str) -> None:
    asked = {member: "Say hello to Anna.", "add_special_tokens": False}
    answer = surface.ask("/tokenize", Task.GENERATE, **asked)
    most = 1024 if surface.engine_type is EngineType.LLAMACPP else 512
    assert answer == {"count": len(answer["tokens"]), "max_model_len": most, "tokens": answer["tokens"]}
    assert answer["count"] > 3
    back = surface.ask("/detokenize", Task.GENERATE, tokens=answer["tokens"])
    assert back == {"prompt": "Say hello to Anna.", "content": "Say hello to Anna."}


def test_the_tokens_of_a_chat_are_those_that_an_answer_counts(surface: Surface) -> None:
    counted = surface.ask("/tokenize", Task.GENERATE, messages=CHAT)["count"]
    told = surface.ask("/v1/chat/completions", Task.GENERATE, messages=CHAT, max_tokens=1)["usage"]["prompt_tokens"]
    messages = surface.ask("/v1/messages/count_tokens", Task.GENERATE, messages=CHAT)
    assert messages == {"input_tokens": counted}
    assert counted == told


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "content": "b"}, {"messages": []}, {"prompt": 3}])
def test_what_is_no_text_is_not_tokenised(surface: Surface, body: dict[str, object]) -> None:
    refused = surface.post("/tokenize", {"model": surface.name(Task.GENERATE), **body})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")


def test_an_engine_is_shown_as_it_is_to_administrators_only(surface: Surface) -> None:
    gateway, name = surface.gateway, surface.name(Task.GENERATE)
    http = surface.through.http

    def get(path: str, key: str) -> httpx.Response:
        return http.get(f"{gateway.url}{path}", headers={"authorization": f"Bearer {key}"})

    refused = get(f"/upstream/{name}/health", gateway.key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
    assert get(f"/upstream/{name}/health", gateway.admin_key).status_code == 200
    models = get(f"/upstream/{name}/v1/models?x=1", gateway.admin_key)
    assert models.json()["data"][0]["id"] == name
    assert models.headers["x-cortex-replica"] == surface.engines[Task.GENERATE].replica_id
    assert get(f"/upstream/{name}/nothing", gateway.admin_key).status_code == 404
    assert get("/upstream/no-model/health", gateway.admin_key).json()["error"]["code"] == "model_not_found"
    asked = {"model": name, "messages": CHAT, "max_tokens": 1}
    raw = surface.post(f"/upstream/{name}/v1/chat/completions", asked, key=gateway.admin_key)
    assert raw.json()["object"] == "chat.completion"
    climbing = http.build_request("GET", f"{gateway.url}/upstream/{name}/%2e%2e/health")
    climbing.headers["authorization"] = f"Bearer {gateway.admin_key}"
    assert http.send(climbing).json()["error"]["code"] == "invalid_path"


def test_anthropics_header_for_keys_is_enough_and_its_errors_have_its_shape(surface: Surface) -> None:
    body = {"model": surface.name(Task.GENERATE), "messages": CHAT, "max_tokens": 1}
    url = f"{surface.gateway.url}/v1/messages"
    http = surface.through.http
    assert http.post(url, json=body, headers={"x-api-key": surface.gateway.key}).status_code == 200
    for headers, change, status, kind in (
        ({}, {}, 401, "authentication_error"),
        ({"x-api-key": "sk-nobody-has-this-one"}, {}, 401, "authentication_error"),
        ({"x-api-key": surface.gateway.key}, {"model": "none"}, 404, "not_found_error"),
        ({"x-api-key": surface.gateway.key}, {"messages": []}, 400, "invalid_request_error"),
        ({"x-api-key": surface.gateway.key}, {"max_tokens": None}, 400, "invalid_request_error"),
    ):
        refused = http.post(url, json=body | change, headers=headers)
        assert refused.status_code == status
        assert refused.json()["type"] == "error"
        assert refused.json()["error"]["type"] == kind
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
