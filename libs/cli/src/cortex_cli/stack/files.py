"""Private files written whole or not at all."""

import os
import secrets
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def write_private(path: Path, text: str) -> None:
    """Replace `path` atomically with a file only its owner can read; durable once this returns."""
    temporary = _write_beside(path, text)
    temporary.replace(path)


def create_private(path: Path, text: str) -> bool:
    """Create `path` atomically unless it exists; false when somebody else was first."""
    temporary = _write_beside(path, text)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def make_private_folder(path: Path) -> None:
    """Create `path` (and parents) so that only its owner can enter it; an existing folder of ours is closed."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)


def _write_beside(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return temporary
