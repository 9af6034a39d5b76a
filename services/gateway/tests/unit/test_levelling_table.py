"""Every difference between the engines that the gateway levels, one row each. The same rows run against both real engines
in test_surface.py."""

import json

import msgspec
import pytest

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.capabilities import Capabilities, capabilities_of
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Answering, engine_body, gathers, read_ask
from cortex_gateway.domain.levelling.engine_errors import TokensOverContextError, map_engine_error
from cortex_gateway.domain.levelling.names import both_reasonings
from cortex_gateway.domain.requests import API_ROUTES
from cortex_gateway.domain.streams import DONE_EVENT

LLAMA = Capabilities(EngineType.LLAMACPP, slots=2, context=1024)
VLLM = Capabilities(EngineType.VLLM, context=512, tools=False)
CHAT = {"messages": [{"role": "user", "content": "x"}]}
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions", "embed": "/v1/embeddings"}
PATHS |= {"responses": "/v1/responses", "messages": "/v1/messages"}


def ask_of(api: str, cap: int = 0, **members: object):
    return read_ask(API_ROUTES[PATHS[api]], json.dumps({"model": "m", **members}).encode(), cap)


def sent(able: Capabilities, api: str, defaults: dict[str, object] | None = None, cap: int = 0, **members: object):
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in (defaults or {}).items()}
    return json.loads(engine_body(ask_of(api, cap, **members), able, "m", raw))


def answering(able: Capabilities, api: str, name: str = "m", **members: object) -> Answering:
    return Answering(ask_of(api, 0, **members), able, name, True, "id")


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("able", "api", "members", "param"),
    [
        (None, "chat", {"messages": []}, "messages"),
        (None, "chat", {}, "messages"),
        (None, "messages", {"messages": [], "max_tokens": 1}, "messages"),
        (None, "messages", CHAT, "max_tokens"),
        (None, "chat", CHAT | {"max_tokens": 0}, "max_tokens"),
        (None, "chat", CHAT | {"max_completion_tokens": 0}, "max_completion_tokens"),
        (None, "responses", {"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        (None, "chat", CHAT | {"n": 0}, "n"),
        (None, "chat", CHAT | {"n": 129}, "n"),
        (None, "chat", CHAT | {"stream_options": {"include_usage": True}}, "stream_options"),
        (None, "chat", CHAT | {"logprobs": 3}, "logprobs"),
        (None, "text", {"prompt": "x", "logprobs": True}, "logprobs"),
        (None, "text", {"prompt": []}, "prompt"),
        (None, "text", {"prompt": ""}, "prompt"),
        (None, "embed", {"input": []}, "input"),
        (None, "embed", {"input": ""}, "input"),
        (None, "responses", {}, "input"),
        (None, "responses", {"input": "x", "previous_response_id": "r"}, "previous_response_id"),
        (None, "responses", {"input": "x", "background": True}, "background"),
        (LLAMA, "chat", CHAT | {"n": 3}, "n"),
        (LLAMA, "embed", {"input": "x", "dimensions": 4}, "dimensions"),
        (LLAMA, "text", {"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
        (LLAMA, "text", {"prompt": [1, 2], "echo": True}, "echo"),
        (LLAMA, "text", {"prompt": "x", "echo": True, "max_tokens": 0}, "max_tokens"),
        (VLLM, "chat", CHAT | {"tools": TOOLS}, "tools"),
        (VLLM, "chat", CHAT | {"tools": TOOLS, "tool_choice": "required"}, "tools"),
    ],
)
def test_what_is_refused_by_whom(able, api, members, param):
    with pytest.raises(ApiError) as refused:
        sent(able or LLAMA, api, **members)
    assert refused.value.status == 400
    assert refused.value.param == param
    if able is not None:
        assert able.engine in refused.value.message
        assert refused.value.openai_code == "not_supported_by_model"


@pytest.mark.parametrize(
    ("able", "api", "members", "changed"),
    [
        (VLLM, "chat", CHAT | {"n": 3}, {}),
        (VLLM, "chat", CHAT | {"tools": TOOLS, "tool_choice": "none"}, {}),
        (VLLM, "text", {"prompt": "x", "echo": True, "max_tokens": 0}, {}),
        (VLLM, "embed", {"input": "x", "dimensions": 4}, {}),
        (LLAMA, "chat", CHAT | {"max_tokens": 4000}, {}),
        (VLLM, "chat", CHAT | {"max_tokens": 4000}, {"max_tokens": 512}),
        (VLLM, "chat", CHAT | {"max_completion_tokens": 4000}, {"max_completion_tokens": 512}),
        (VLLM, "messages", CHAT | {"max_tokens": 4000}, {"max_tokens": 512}),
        (VLLM, "responses", {"input": "x", "max_output_tokens": 4000}, {"max_output_tokens": 512}),
        (VLLM, "chat", CHAT | {"stream": True}, {"stream_options": {"include_usage": True}}),
        (LLAMA, "text", {"prompt": "x", "stream": True}, {"stream_options": {"include_usage": True}}),
        (LLAMA, "responses", {"input": "x", "stream": True}, {}),
        (LLAMA, "messages", CHAT | {"max_tokens": 1, "stream": True}, {}),
        (LLAMA, "chat", CHAT | {"n": 2}, {"stream": True, "stream_options": {"include_usage": True}}),
        (LLAMA, "text", {"prompt": ["a", "b"]}, {"stream": True, "stream_options": {"include_usage": True}}),
        (VLLM, "text", {"prompt": ["a", "b"]}, {}),
        (LLAMA, "embed", {"input": ["a", "b"]}, {}),
        (LLAMA, "text", {"prompt": "x", "logprobs": 0}, {"logprobs": 1}),
        (VLLM, "text", {"prompt": "x", "logprobs": 0}, {}),
    ],
)
def test_what_is_changed_on_the_way_in(able, api, members, changed):
    assert sent(able, api, **members) == {"model": "m", **members, **changed}


@pytest.mark.parametrize("able", [LLAMA, VLLM])
def test_what_needs_no_change_is_the_very_same_object(able):
    ask = ask_of("chat", **CHAT, max_tokens=5, temperature=0.1)
    assert engine_body(ask, able, "m", {}) is ask.body


@pytest.mark.parametrize(
    ("able", "cap", "defaults", "members", "limit"),
    [
        (VLLM, 0, {}, {}, None),
        (VLLM, 100, {}, {}, 100),
        (VLLM, 9000, {}, {}, 512),
        (VLLM, 100, {}, {"max_tokens": 7}, 7),
        (VLLM, 100, {}, {"max_completion_tokens": 7}, None),
        (VLLM, 100, {"max_tokens": 50}, {}, 50),
        (Capabilities(EngineType.LLAMACPP, context=64, endless=True), 0, {}, {}, 64),
        (Capabilities(EngineType.LLAMACPP, endless=True), 0, {}, {}, None),
    ],
)
def test_an_answer_without_a_limit_gets_one(able, cap, defaults, members, limit):
    assert sent(able, "chat", defaults, cap, **CHAT, **members).get("max_tokens") == limit


def test_a_clients_own_choice_of_tools_and_log_probabilities_in_several_choices_is_not_gathered():
    assert gathers(ask_of("chat", **CHAT, n=2), LLAMA)
    assert not gathers(ask_of("chat", **CHAT, n=2), VLLM)
    assert not gathers(ask_of("chat", **CHAT, n=2, stream=True), LLAMA)
    assert not gathers(ask_of("chat", **CHAT, n=2, tools=TOOLS, logprobs=True), LLAMA)


def test_vllms_refusal_of_too_many_tokens_says_how_many_it_can_make():
    body = {"error": {"message": "max_tokens=9 cannot be greater than max_model_len=8. Please", "code": 400}}
    error = map_engine_error(400, json.dumps(body).encode(), EngineType.VLLM).error
    assert isinstance(error, TokensOverContextError)
    ask = ask_of("chat", **CHAT, max_tokens=9)
    ask.most = error.most
    assert json.loads(engine_body(ask, Capabilities(EngineType.VLLM), "m", {}))["max_tokens"] == 8


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", 500),
        ("tiny is not a multimodal model", 400),
        ('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', 400),
        ("logprobs is not supported with tools + stream", 400),
        ("This server does not support embeddings. Start it with `--embeddings`", 501),
        ("Not Found", 404),
    ],
)
def test_what_an_engine_cannot_do_names_the_engine_and_the_reason(message, status):
    error = map_engine_error(status, json.dumps({"error": {"message": message}}).encode(), EngineType.LLAMACPP).error
    assert (error.status, error.openai_code) == (400, "not_supported_by_model")
    assert "llama.cpp" in error.message
    assert message in error.message


def event(**members: object) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def test_the_name_that_was_asked_comes_back_in_whole_answers_and_streams():
    asked = answering(VLLM, "chat", "real", **CHAT)
    body, _ = asked.whole(b'{"model":"real","choices":[{"message":{"content":"\\"model\\":\\"real\\""}}]}')
    assert json.loads(body)["model"] == "m"
    assert json.loads(body)["choices"][0]["message"]["content"] == '"model":"real"'
    leveller = answering(VLLM, "chat", "real", **CHAT, stream=True).leveller()
    assert leveller.feed(event(model="real", choices=[{"index": 0}])) == event(model="m", choices=[{"index": 0}])


def test_a_fallbacks_answer_keeps_its_own_name():
    ask = ask_of("chat", **CHAT)
    body, _ = Answering(ask, VLLM, "other", False, "id").whole(b'{"model":"other"}')
    assert body == b'{"model":"other"}'


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_have_both_names(name):
    chunk = event(choices=[{"index": 0, "delta": {name: 'say "reasoning":"x"'}}])
    out = json.loads(both_reasonings(chunk)[6:])
    delta = out["choices"][0]["delta"]
    assert delta == {"reasoning": 'say "reasoning":"x"', "reasoning_content": 'say "reasoning":"x"'}
    assert both_reasonings(both_reasonings(chunk)) == both_reasonings(chunk)
    assert both_reasonings(b'{"reasoning":null}') == b'{"reasoning":null}'


LOGPROBS = {
    "content": [
        {"token": " a", "logprob": -0.5, "bytes": [1], "top_logprobs": [{"token": " a", "logprob": -0.5}]},
        {"token": "b", "logprob": -1.5, "top_logprobs": [{"token": "c", "logprob": -0.1}]},
    ]
}


def test_log_probabilities_of_a_text_become_the_legacy_lists():
    body = event(id="chatcmpl-1", choices=[{"text": " ab", "index": 0, "logprobs": LOGPROBS}])[6:-2]
    answer = json.loads(answering(LLAMA, "text", prompt="x", logprobs=1).whole(body)[0])
    assert answer["id"] == "cmpl-1"
    assert answer["choices"][0]["logprobs"] == {
        "text_offset": [0, 2],
        "token_logprobs": [-0.5, -1.5],
        "tokens": [" a", "b"],
        "top_logprobs": [{" a": -0.5}, {"c": -0.1}],
    }
    none = json.loads(answering(LLAMA, "text", prompt="x", logprobs=0).whole(body)[0])
    assert none["choices"][0]["logprobs"]["top_logprobs"] == [{}, {}]


def test_offsets_of_a_streams_tokens_go_on_from_chunk_to_chunk():
    leveller = answering(LLAMA, "text", prompt="x", logprobs=1, stream=True).leveller()
    chunk = event(choices=[{"text": " ab", "index": 0, "logprobs": LOGPROBS}])
    offsets = [json.loads(leveller.feed(chunk)[6:])["choices"][0]["logprobs"]["text_offset"] for _ in range(2)]
    assert offsets == [[0, 2], [3, 5]]


def test_echo_puts_each_prompt_before_its_choices_once():
    leveller = answering(LLAMA, "text", prompt=["P", "Q"], n=2, echo=True, stream=True).leveller()
    chunks = [event(choices=[{"text": "t", "index": index}]) for index in (0, 3, 0, 1, 2)]
    texts = [json.loads(leveller.feed(chunk)[6:])["choices"][0]["text"] for chunk in chunks]
    assert texts == ["Pt", "Qt", "t", "Pt", "Qt"]


def test_a_gathered_stream_is_the_document_of_all_its_choices():
    asked = answering(LLAMA, "chat", **CHAT, n=2)
    leveller, gathering = asked.gathering()
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    rest = {"index": 0, "function": {"arguments": "1}"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    for chunk in (
        event(id="i", created=7, model="m", choices=[{"index": 1, "delta": {"role": "assistant", "content": None}}]),
        event(choices=[{"index": 1, "delta": {"reasoning_content": "hm"}}]),
        event(choices=[{"index": 1, "delta": {"content": "he"}, "logprobs": {"content": [{"token": "he"}]}}]),
        event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}]),
        event(choices=[{"index": 1, "delta": {"content": "llo"}, "finish_reason": "stop"}]),
        event(choices=[{"index": 0, "delta": {"tool_calls": [rest]}, "finish_reason": "tool_calls"}]),
        event(choices=[], usage=usage),
        event(choices=[], usage=usage),
        DONE_EVENT,
    ):
        leveller.feed(chunk)
    assert leveller.done
    assert leveller.usage is not None
    document = json.loads(gathering.document(leveller.usage))
    first, second = document["choices"]
    assert document["usage"]["completion_tokens"] == 6
    assert document["usage"]["prompt_tokens"] == 5
    assert (document["id"], document["created"], document["object"]) == ("i", 7, "chat.completion")
    assert first["message"]["content"] is None
    assert first["message"]["tool_calls"][0] == {
        "type": "function",
        "id": "c1",
        "function": {"name": "f", "arguments": '{"a":1}'},
    }
    assert second["message"] == {"role": "assistant", "content": "hello", "reasoning_content": "hm"}
    assert second["logprobs"] == {"content": [{"token": "he"}]}
    assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")


def test_slots_and_context_are_read_off_the_model(model):
    options = {"context_size": 4096, "parallel_slots": 4}
    assert capabilities_of(model(llamacpp=options)).context == 1024
    assert capabilities_of(model(llamacpp=options | {"kv_unified": True})).context == 4096
    assert capabilities_of(model(llamacpp=options)).slots == 4
    assert capabilities_of(model(llamacpp=options, extra_args=("-np", "8"))).slots is None
    assert capabilities_of(model(engine_type="vllm", vllm={})).tools is False
    assert capabilities_of(model(engine_type="vllm", vllm={"tool_call_parser": "hermes"})).tools is True
    assert capabilities_of(model(external=[{"url": "http://a:1"}], llamacpp=options)).slots is None
