"""The request handler with fakes: it always answers."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.events import Event, GgufInspectedV1, GgufRejectedV1
from cortex_contracts.rpc import InspectRequestV1
from cortex_gguf_inspector.adapters.disk import DiskInspector
from cortex_gguf_inspector.handlers import InspectHandler
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.settings import Settings
from cortex_kit.errors import TransientError


class Documents:
    def __init__(self) -> None:
        self.stored: dict[str, GgufDocumentV1] = {}
        self.away = False

    async def put(self, key: str, document: GgufDocumentV1) -> int:
        if self.away:
            raise TransientError("NATS is not connected")
        self.stored[key] = document
        return 1


class Observers:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    async def try_publish(self, event: Event, *, aggregate_id: str) -> bool:
        assert aggregate_id
        self.seen.append(event)
        return True


async def inspect(root: Path | None, path: str, documents: Documents, observers: Observers):
    with DiskInspector(root, Limits(), workers=1) as inspector:
        return await InspectHandler(inspector, documents, observers).inspect(InspectRequestV1(path=path))


async def test_a_model_is_answered_stored_and_announced(tmp_path, writer):
    writer().model().write(tmp_path / "tiny.gguf")
    documents, observers = Documents(), Observers()
    reply = await inspect(tmp_path, "tiny.gguf", documents, observers)
    assert reply.error is None
    assert reply.result is not None
    assert documents.stored == {reply.result.gguf.identity: reply.result.gguf}
    assert reply.result.gguf.aggregateversion > 0
    assert isinstance(observers.seen[0], GgufInspectedV1)


async def test_a_refusal_is_answered_and_announced(tmp_path):
    documents, observers = Documents(), Observers()
    reply = await inspect(tmp_path, "none\ud800.gguf" + "x" * 2000, documents, observers)
    assert reply.result is None
    assert reply.error is not None
    assert reply.error.code == "invalid_path"
    (event,) = observers.seen
    assert isinstance(event, GgufRejectedV1)
    assert event.model_dump_json()
    assert len(event.path) < 1000


async def test_the_answer_does_not_depend_on_the_store(tmp_path, writer):
    writer().model().write(tmp_path / "tiny.gguf")
    documents = Documents()
    documents.away = True
    reply = await inspect(tmp_path, "tiny.gguf", documents, Observers())
    assert reply.result is not None


async def test_without_a_models_directory_every_request_is_refused():
    reply = await inspect(None, "a.gguf", Documents(), Observers())
    assert reply.error is not None
    assert reply.error.code == "models_dir_unavailable"
    with DiskInspector(None, Limits(), workers=1) as inspector:
        assert inspector.readiness() is not None


async def test_a_disk_that_does_not_answer_is_a_refusal(tmp_path, monkeypatch):
    def hang(root: Path, path: str, limits: Limits) -> None:
        raise TimeoutError

    monkeypatch.setattr("cortex_gguf_inspector.adapters.disk.inspect_model", hang)
    reply = await inspect(tmp_path, "a.gguf", Documents(), Observers())
    assert reply.error is not None
    assert reply.error.code == "inspect_timeout"


@pytest.mark.parametrize(
    ("name", "value", "field"), [("TIME_BUDGET_S", "2.5", "time_budget_s"), ("MAX_TENSORS", "9", "tensors")]
)
def test_limits_come_from_the_environment(name, value, field, monkeypatch, secret_key):
    monkeypatch.setenv(f"CORTEX_INSPECTOR_{name}", value)
    monkeypatch.setenv("CORTEX_MODELS_DIR", "/models")
    settings = Settings(nats_url=SecretStr("nats://127.0.0.1"), secret_key=SecretStr(secret_key))
    assert getattr(settings.limits(), field) == float(value)
    assert (settings.port, settings.models_dir) == (8084, Path("/models"))
