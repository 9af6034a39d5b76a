"""Secrets of one home, generated once."""

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from cortex_cli.errors import StackError
from cortex_cli.stack.files import create_private


def _token() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Secrets:
    """256 bits each, safe inside URLs. Never shown by `repr`."""

    secret_key: str = field(default_factory=_token, repr=False)
    admin_token: str = field(default_factory=_token, repr=False)
    nats_password: str = field(default_factory=_token, repr=False)
    nats_operator_password: str = field(default_factory=_token, repr=False)
    postgres_password: str = field(default_factory=_token, repr=False)


def load_or_create(path: Path) -> Secrets:
    """Read the secrets of this home, making them when there are none; two callers get the same ones.

    Raises:
        StackError: the file is there but is not ours to read or is damaged.
    """
    if not path.exists():
        create_private(path, json.dumps(asdict(Secrets()), indent=1))
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StackError(
            f"The secrets file {path} cannot be read: {error}.",
            fix="restore it from a backup; without it sealed tokens and the database password are lost",
        ) from error


def _parse(text: str) -> Secrets:
    values: dict[str, object] = json.loads(text)
    return Secrets(**{item.name: _long_enough(item.name, values[item.name]) for item in fields(Secrets)})


def _long_enough(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) < 32:
        raise ValueError(f"{name} must be a string of 32 characters or more")
    return value
