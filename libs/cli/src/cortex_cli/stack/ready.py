"""The ready file: where everything is, for commands and for programs that start Cortex themselves."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cortex_cli.stack.files import write_private


@dataclass(frozen=True, slots=True)
class Ready:
    """Content of ready.json; it is there exactly while the stack is ready."""

    gateway_url: str
    registry_url: str
    console_url: str
    nats_url: str = field(repr=False)
    admin_token: str = field(repr=False)
    api_key: str = field(repr=False)
    demo_model: str | None
    nats_operator_url: str = field(repr=False)
    """A user that can only listen to events."""
    models_dir: str
    pid: int
    """Of the `cortex up` that wrote it."""


def write(path: Path, ready: Ready) -> None:
    """Write the file, private and whole."""
    write_private(path, json.dumps(asdict(ready), indent=1))


def remove(path: Path) -> None:
    """Remove the file."""
    path.unlink(missing_ok=True)
