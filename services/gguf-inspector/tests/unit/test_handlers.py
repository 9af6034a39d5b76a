"""The request handler with fakes: it always answers."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.events import Event, GgufInspectedV1, GgufRejectedV1
from cortex_contracts.rpc import InspectRequestV1
from cortex_gguf_inspector.adapters.disk import DiskInspector
from cortex_gguf_inspector.adapters.library import DiskLibrary
from cortex_gguf_inspector.catalog import Catalog, Reconciler
from cortex_gguf_inspector.handlers import InspectHandler, Watcher
from cortex_gguf_inspector.library.tree import ScanBounds
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.settings import Settings
from cortex_kit.errors import TransientError


class Documents:
    """The bucket: what is stored is known at once."""

    def __init__(self) -> None:
        self.items: dict[str, GgufDocumentV1] = {}
        self.synced = True
        self.away = False
        self.writes = 0

    async def put(self, key: str, document: GgufDocumentV1) -> int:
        if self.away:
            raise TransientError("NATS is not connected")
        self.items[key] = document
        self.writes += 1
        return 1

    async def delete(self, key: str) -> None:
        self.items.pop(key, None)


class Observers:
    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.ids: list[str | None] = []

    async def publish(self, event: Event, *, aggregate_id: str, event_id: str | None = None) -> None:
        assert aggregate_id
        assert event_id
        self.seen.append(event)
        self.ids.append(event_id)


class World:
    def __init__(self) -> None:
        self.documents, self.observers = Documents(), Observers()
        self.catalog = Catalog(self.documents, self.observers, self.documents)

    async def inspect(self, root: Path | None, path: str):
        with DiskInspector(root, Limits(), workers=1) as inspector:
            return await InspectHandler(inspector, self.catalog).inspect(InspectRequestV1(path=path))


@pytest.fixture
def world() -> World:
    return World()


async def test_a_model_is_answered_stored_and_announced_once(tmp_path, writer, world):
    writer().model().write(tmp_path / "tiny.gguf")
    for _ in range(2):
        reply = await world.inspect(tmp_path, "tiny.gguf")
        assert reply.error is None
        assert reply.result is not None
        assert world.documents.items == {reply.result.gguf.identity: reply.result.gguf}
        assert reply.result.gguf.aggregateversion > 0
    assert [type(event) for event in world.observers.seen] == [GgufInspectedV1]
    assert world.documents.writes == 1


async def test_a_refusal_is_answered_and_announced_once(tmp_path, world):
    for _ in range(2):
        reply = await world.inspect(tmp_path, "none\ud800.gguf" + "x" * 2000)
        assert reply.result is None
        assert reply.error is not None
        assert reply.error.code == "invalid_path"
    (event,) = world.observers.seen
    assert isinstance(event, GgufRejectedV1)
    assert event.model_dump_json()
    assert len(event.path) < 1000


async def test_the_answer_does_not_depend_on_the_store(tmp_path, writer, world):
    writer().model().write(tmp_path / "tiny.gguf")
    world.documents.away = True
    reply = await world.inspect(tmp_path, "tiny.gguf")
    assert reply.result is not None
    world.documents.away = False
    await world.inspect(tmp_path, "tiny.gguf")
    assert world.documents.writes == 1
    assert len(set(world.observers.ids)) == 1  # told again under the same id: one event for everybody


async def test_without_a_models_directory_every_request_is_refused(world):
    reply = await world.inspect(None, "a.gguf")
    assert reply.error is not None
    assert reply.error.code == "models_dir_unavailable"
    with DiskInspector(None, Limits(), workers=1) as inspector:
        assert inspector.readiness() is not None


async def test_a_disk_that_does_not_answer_is_a_refusal(tmp_path, monkeypatch, world):
    def hang(root: Path, path: str, limits: Limits) -> None:
        raise TimeoutError

    monkeypatch.setattr("cortex_gguf_inspector.adapters.disk.inspect_model", hang)
    reply = await world.inspect(tmp_path, "a.gguf")
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


class Lead:
    def __init__(self, *, held: bool) -> None:
        self.held = held


def watch(world: World, root: Path, *, held: bool = True) -> Watcher:
    disk = DiskLibrary(root, Limits(), ScanBounds(), verify_timeout_s=10)
    return Watcher(disk, Reconciler(world.catalog, world.documents), world.documents, Lead(held=held), interval_s=1)


async def test_the_watch_tells_every_change_once_and_forgets_what_is_gone(tmp_path, writer, world):
    watcher = watch(world, tmp_path)
    file = writer().model().write(tmp_path / "a" / "tiny.gguf")
    (tmp_path / "page.gguf").write_text("<!doctype html>")
    for _ in range(3):
        await watcher.look()
    assert [event.SUBJECT for event in world.observers.seen] == ["gguf.inspected", "gguf.rejected"]
    (document,) = world.documents.items.values()
    assert document.path == "a/tiny.gguf"
    file.rename(tmp_path / "moved.gguf")
    await watcher.look()
    (document,) = world.documents.items.values()
    assert document.path == "moved.gguf"
    (tmp_path / "moved.gguf").unlink()
    (tmp_path / "page.gguf").unlink()
    await watcher.look()
    assert world.documents.items  # one scan may be wrong
    await watcher.look()
    assert not world.documents.items
    assert len(world.observers.seen) == 3


async def test_a_directory_that_is_away_removes_nothing(tmp_path, writer, world):
    root = tmp_path / "models"
    writer().model().write(root / "tiny.gguf")
    watcher = watch(world, root)
    await watcher.look()
    root.rename(tmp_path / "elsewhere")
    for _ in range(3):
        await watcher.look()
    assert len(world.documents.items) == 1


async def test_who_does_not_lead_tells_nothing_and_knows_what_was_told(tmp_path, writer, world):
    writer().model().write(tmp_path / "tiny.gguf")
    (tmp_path / "page.gguf").write_text("<!doctype html>")
    follower = watch(world, tmp_path, held=False)
    await follower.look()
    await follower.look()
    assert world.observers.seen == []
    await watch(world, tmp_path).look()
    assert [event.SUBJECT for event in world.observers.seen] == ["gguf.inspected"]


async def test_a_copy_of_a_model_is_no_change(tmp_path, writer, world):
    writer().model().write(tmp_path / "b.gguf")
    watcher = watch(world, tmp_path)
    await watcher.look()
    writer().model().write(tmp_path / "a.gguf")
    await watcher.look()
    await world.inspect(tmp_path, "a.gguf")
    assert [document.path for document in world.documents.items.values()] == ["b.gguf"]
    assert len(world.observers.seen) == 1
