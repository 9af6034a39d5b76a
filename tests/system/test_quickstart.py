"""What a new user does in the first ten minutes, with the official client and the `cortex` command."""

import json
import stat
from pathlib import Path

import httpx
import openai
import pytest

from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MESSAGES = [{"role": "user", "content": "Write one sentence about the sea."}]


def test_the_demo_model_answers_the_official_client(stack: Stack) -> None:
    with stack.openai() as client:
        answer = client.chat.completions.create(model=DEMO, messages=MESSAGES, max_tokens=16, temperature=0)
    assert answer.model == DEMO
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 16


def test_a_stream_ends_with_usage_when_asked_for(stack: Stack) -> None:
    with stack.openai() as client:
        stream = client.chat.completions.create(
            model=DEMO, messages=MESSAGES, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_a_stream_carries_no_usage_when_not_asked_for(stack: Stack) -> None:
    with stack.openai() as client:
        chunks = list(client.chat.completions.create(model=DEMO, messages=MESSAGES, max_tokens=6, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_legacy_completions_and_the_model_list(stack: Stack) -> None:
    with stack.openai() as client:
        answer = client.completions.create(model=DEMO, prompt="The sea is", max_tokens=6, temperature=0)
        assert answer.choices[0].text
        models = client.models.list().data
    assert [(model.id, model.object) for model in models if model.id == DEMO] == [(DEMO, "model")]


def test_a_wrong_key_is_a_clear_401(stack: Stack) -> None:
    with stack.openai("sk-cortex-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model=DEMO, messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    assert httpx.get(f"{stack.ready['gateway_url']}/v1/models").status_code == 401


def test_an_unknown_model_is_a_clear_404(stack: Stack) -> None:
    with stack.openai() as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_embeddings_of_a_chat_model_are_refused_in_words(stack: Stack) -> None:
    with stack.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=DEMO, input="x")
    assert DEMO in str(caught.value)


def test_the_admin_api_lets_nobody_in_without_its_token(stack: Stack) -> None:
    url = stack.ready["registry_url"]
    for path in ("/admin/models", "/admin/keys", "/admin/usage"):
        assert httpx.get(f"{url}{path}").status_code == 401
        assert httpx.get(f"{url}{path}", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_every_service_reports_itself(stack: Stack) -> None:
    for url in (stack.ready["gateway_url"], stack.ready["registry_url"], stack.ready["console_url"]):
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "# HELP" in httpx.get(f"{url}/metrics").text


def test_secrets_are_for_the_owner_only_and_in_no_log(stack: Stack) -> None:
    ready = stack.home / "ready.json"
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    secrets = [stack.ready["admin_token"], stack.ready["api_key"]]
    assert all(secret in ready.read_text() for secret in secrets)
    logs = [path.read_text(errors="replace") for path in (stack.home / "logs").rglob("*") if path.is_file()]
    assert logs
    assert not [secret for secret in secrets for text in logs if secret in text]


def test_a_second_gguf_from_file_to_answer_by_the_command(stack: Stack, smollm2_gguf: Path) -> None:
    stack.add_gguf(smollm2_gguf, "second.gguf")
    stack.cli("model", "create", "second", "--engine", "llamacpp", "--local-path", "second.gguf")
    stack.cli("model", "start", "second")
    shown = json.loads(stack.cli("model", "show", "second", "--json"))
    assert shown["state"] == "running"
    assert shown["reason"]
    assert stack.cli("chat", "second", "Say hello.").strip()
    assert any(row["name"] == "second" for row in json.loads(stack.cli("model", "list", "--json")))
    assert "llama" in stack.cli("model", "logs", "second").lower()
    stack.cli("model", "stop", "second")
    eventually(lambda: stack.model("second")["state"] == "stopped")
    stack.cli("model", "delete", "second", "--yes")
    eventually(lambda: not any("second.gguf" in " ".join(engine.cmdline()) for engine in stack.engines()))
    assert stack.admin("GET", "/admin/models/second").status_code == 404


@pytest.mark.parametrize(
    ("local_path", "code"),
    [
        ("missing.gguf", "file_not_found"),
        ("notes.txt", "not_gguf"),
        ("../outside.gguf", "path_outside_models_root"),
        ("/etc/passwd", "path_outside_models_root"),
        ("escape.gguf", "path_outside_models_root"),
    ],
)
def test_a_bad_model_file_is_refused_with_a_code(stack: Stack, smollm2_gguf: Path, local_path: str, code: str) -> None:
    (stack.models / "notes.txt").write_text("these are notes\n" * 100)
    link = stack.models / "escape.gguf"
    if not link.is_symlink():
        link.symlink_to(smollm2_gguf)
    body = {"name": "bad", "engine_type": "llamacpp", "local_path": local_path}
    response = stack.admin("POST", "/admin/models", body)
    link.unlink(missing_ok=True)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"].startswith("application/problem+json")
    problem = response.json()
    assert problem["code"] == code
    assert len(problem["detail"]) > 20
    assert stack.admin("GET", "/admin/models/bad").status_code == 404


def test_the_command_tells_a_refusal_in_one_line(stack: Stack) -> None:
    text = stack.cli("model", "create", "bad", "--engine", "llamacpp", "--local-path", "missing.gguf", expect=1)
    assert "file_not_found" in text
    assert "Traceback" not in text


def test_keys_are_made_shown_once_and_revoked(stack: Stack) -> None:
    made = json.loads(stack.cli("key", "create", "for-a-test", "--json"))
    with stack.openai(made["key"]) as client:
        eventually(lambda: client.models.list().data)
        listed = stack.cli("key", "list", "--json")
        assert made["key"] not in listed
        stack.cli("key", "revoke", made["id"])

        def is_refused() -> bool:
            try:
                client.models.list()
            except openai.AuthenticationError:
                return True
            return False

        eventually(is_refused, timeout=5)


def test_gguf_inspect_works_on_any_file(stack: Stack, smollm2_gguf: Path) -> None:
    shown = json.loads(stack.cli("gguf", "inspect", str(smollm2_gguf), "--json"))
    assert shown["architecture"] == "llama"
    assert shown["context_length"] == 8192
    assert 134_000_000 < shown["parameters"] < 136_000_000
