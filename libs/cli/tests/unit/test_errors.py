import json

import httpx
import pytest

from cortex_cli.adapters.gateway_api import Conversation, piece_of
from cortex_cli.adapters.http_errors import ApiError, api_error, transport_error
from cortex_cli.errors import CliError, ExitCode, not_running
from cortex_cli.output import print_error


@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        pytest.param(
            422,
            {"code": "file_not_found", "detail": "a.gguf does not exist", "title": "Unprocessable", "type": "urn:x"},
            "file_not_found",
            "a.gguf does not exist",
            id="problem+json",
        ),
        pytest.param(
            401,
            {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}},
            "invalid_api_key",
            "Incorrect API key",
            id="OpenAI",
        ),
        pytest.param(
            422,
            {"code": "invalid_request", "detail": "Not valid.", "errors": [{"field": "ngl", "message": "too low"}]},
            "invalid_request",
            "Not valid. (ngl: too low)",
            id="fields",
        ),
        pytest.param(502, "<html>", "http_502", "HTTP 502", id="not JSON"),
        pytest.param(500, [1], "http_500", "HTTP 500", id="not an object"),
    ],
)
def test_refusals_become_a_code_and_a_sentence(status: int, body: object, code: str, text: str) -> None:
    error = api_error(status, body if isinstance(body, str) else json.dumps(body))
    assert (error.status, error.code, error.message) == (status, code, text)
    assert error.exit_code is ExitCode.FAILED


def test_a_refused_connection_says_how_to_start() -> None:
    error = transport_error(httpx.ConnectError("refused"), "http://127.0.0.1:1")
    assert error.exit_code is ExitCode.NOT_RUNNING
    assert "start it with `cortex up`" in error.message


@pytest.mark.parametrize(
    "failure", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.UnsupportedProtocol("no scheme")]
)
def test_every_transport_failure_is_one_clear_line(failure: httpx.HTTPError) -> None:
    error = transport_error(failure, "http://127.0.0.1:1")
    assert "http://127.0.0.1:1" in error.message
    assert error.exit_code is not ExitCode.NOT_RUNNING


def test_an_error_is_printed_with_code_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ApiError(422, "not_gguf", "It is no GGUF.", "give another file"))
    print_error(not_running())
    print_error(CliError("It broke.\n  line of a log"))
    assert capsys.readouterr().err.splitlines() == [
        "cortex: It is no GGUF. [not_gguf] -> give another file",
        "cortex: Cortex does not run here: start it with `cortex up`.",
        "cortex: It broke.",
        "  line of a log",
    ]


@pytest.mark.parametrize(
    ("line", "piece"),
    [
        ("", ""),
        (": ping", ""),
        ("data: [DONE]", ""),
        ('data: {"choices":[{"delta":{"role":"assistant","content":null}}]}', ""),
        ('data: {"choices":[{"delta":{"content":"Hi"}}]}', "Hi"),
        ('data:{"choices":[],"usage":{"total_tokens":3}}', ""),
    ],
)
def test_text_is_taken_from_an_event_stream(line: str, piece: str) -> None:
    assert piece_of(line) == piece


def test_an_error_inside_a_stream_ends_it() -> None:
    with pytest.raises(ApiError, match="engine died"):
        piece_of('data: {"error":{"message":"engine died","code":"upstream_error"}}')


def test_a_conversation_keeps_its_turns_and_forgets_what_was_not_answered() -> None:
    talk = Conversation("Be brief.")
    assert [message["role"] for message in talk.ask("one")] == ["system", "user"]
    talk.answered("1")
    talk.ask("two")
    talk.take_back()
    assert [message["content"] for message in talk.all()] == ["Be brief.", "one", "1"]
