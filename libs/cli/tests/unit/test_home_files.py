import os
import stat
from pathlib import Path

import pytest

from cortex_cli.errors import StackError
from cortex_cli.stack import lock, logs, secrets
from cortex_cli.stack.files import create_private, write_private
from cortex_cli.stack.home import Home
from cortex_cli.stack.records import ProcessRecords, Record, is_alive


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_closed_to_others(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    home.prepare()
    assert {_mode(folder) for folder in (home.root, home.logs, home.spool, home.engines)} == {0o700}
    assert _mode(home.models) == 0o755, "engines in containers run as another user"


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used"):
        Home(tmp_path / "file" / "home").prepare()


def test_secrets_are_made_once_and_privately(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = secrets.load_or_create(file)
    assert secrets.load_or_create(file) == first
    assert _mode(file) == 0o600
    assert len(first.secret_key) >= 32
    assert len({first.secret_key, first.admin_token, first.nats_password, first.postgres_password}) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"secret_key": "short"}'])
def test_damaged_secrets_are_never_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(content)
    with pytest.raises(StackError, match="cannot be read"):
        secrets.load_or_create(file)
    assert file.read_text() == content


def test_who_creates_first_wins(tmp_path: Path) -> None:
    assert create_private(tmp_path / "x", "first") is True
    assert create_private(tmp_path / "x", "second") is False
    assert (tmp_path / "x").read_text() == "first"
    write_private(tmp_path / "x", "third")
    assert (tmp_path / "x").read_text() == "third"


def test_a_home_has_one_holder(tmp_path: Path) -> None:
    file = tmp_path / "up.lock"
    assert lock.holder(file) is None
    with lock.hold(file):
        assert lock.holder(file) == os.getpid()
        with pytest.raises(StackError, match=f"already runs on {tmp_path}.*{os.getpid()}"), lock.hold(file):
            pass
    assert lock.holder(file) is None


def test_a_process_is_known_by_its_start_time_too(tmp_path: Path) -> None:
    records = ProcessRecords(tmp_path)
    records.add("me", os.getpid())
    (mine,) = records.living()
    assert (mine.name, mine.pid) == ("me", os.getpid())
    assert not is_alive(Record("me", mine.pid, mine.started - 60))
    (tmp_path / "damaged.json").write_text("{")
    assert len(records.living()) == 1
    records.remove("me")
    assert records.living() == []


def test_logs_stay_bounded(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    logs.rotate(log, 10)
    log.write_text("0123456789")
    logs.rotate(log, 10)
    assert log.exists()
    log.write_text("0123456789a")
    logs.rotate(log, 10)
    assert not log.exists()
    assert (tmp_path / "x.log.1").read_text() == "0123456789a"


def test_a_log_is_cut_while_its_process_writes(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first line\nsecond line\n")
        logs.cut(log, 10)
        writer.write(b"third line\n")
    assert log.read_text() == "third line\n"
    assert logs.tail(tmp_path / "x.log.1", 1) == ["second line"]
    assert logs.tail(tmp_path / "nothing") == []
