"""The projection on disk: written whole, believed only when it is our own."""

import os
import stat
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from cortex_gateway.adapters import snapshot as module
from cortex_gateway.adapters.snapshot import SnapshotFile
from cortex_gateway.ports import BucketSnapshot, Snapshot

SECRET = SecretStr("s" * 40)
SAVED_AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
SNAPSHOT = Snapshot(
    SAVED_AT,
    {
        "keys": BucketSnapshot(7, {"k1": b'{"id":"k1","name":"\xc3\xa9\\n"}'}),
        "models": BucketSnapshot(0, {}),
    },
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "projection.snapshot"


def test_what_was_saved_is_loaded_and_only_the_owner_can_read_it(path):
    store = SnapshotFile(path, SECRET)
    assert store.load() is None
    store.save(SNAPSHOT)
    store.save(SNAPSHOT)
    assert store.load() == SNAPSHOT
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_a_snapshot_survives_a_change_of_the_secret_key_when_the_old_one_is_named(path):
    SnapshotFile(path, SECRET).save(SNAPSHOT)
    new = SecretStr("n" * 40)
    assert SnapshotFile(path, new, [SECRET]).load() == SNAPSHOT
    assert SnapshotFile(path, new).load() is None


def test_one_changed_byte_anywhere_makes_it_worthless(path):
    store = SnapshotFile(path, SECRET)
    store.save(SNAPSHOT)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        loaded = store.load()
        assert loaded is None or loaded == SNAPSHOT, position
    path.write_bytes(good)
    assert store.load() == SNAPSHOT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}",
        b"[]\n[]",
        b"\x00" * 100,
        b"{" * 100_000,
        b'{"format":"cortex-gateway-projection"}\n{}',
        b"\xff\n",
    ],
)
def test_a_foreign_file_is_ignored(path, content):
    store = SnapshotFile(path, SECRET)
    store.save(SNAPSHOT)
    path.write_bytes(content)
    assert store.load() is None


@pytest.mark.parametrize("length", [1, 50, 150, -1])
def test_a_torn_file_is_ignored(path, length):
    store = SnapshotFile(path, SECRET)
    store.save(SNAPSHOT)
    path.write_bytes(path.read_bytes()[:length])
    assert store.load() is None


def test_a_file_of_a_later_version_is_ignored(path, monkeypatch):
    monkeypatch.setattr(module, "VERSION", 2)
    SnapshotFile(path, SECRET).save(SNAPSHOT)
    monkeypatch.undo()
    assert SnapshotFile(path, SECRET).load() is None


def test_links_pipes_folders_and_giants_are_ignored(path, tmp_path, monkeypatch):
    store = SnapshotFile(path, SECRET)
    store.save(SNAPSHOT)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.load() is None
    path.unlink()
    os.mkfifo(path)
    assert store.load() is None
    path.unlink()
    path.mkdir()
    assert store.load() is None
    path.rmdir()
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    store.save(SNAPSHOT)
    assert store.load() is None


def test_a_save_that_fails_leaves_the_old_snapshot_and_nothing_else(path, monkeypatch):
    store = SnapshotFile(path, SECRET)
    store.save(SNAPSHOT)

    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.save(Snapshot(SAVED_AT, {}))
    monkeypatch.undo()
    assert store.load() == SNAPSHOT
    assert os.listdir(path.parent) == [path.name]
