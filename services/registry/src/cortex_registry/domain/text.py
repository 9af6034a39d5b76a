"""Text that Postgres, JSON and NATS can all carry."""

import uuid
from collections.abc import Mapping, Sequence
from typing import cast

MAX_DEPTH = 32

Path = tuple[str | int, ...]


def find_unstorable(value: object) -> Path | None:
    """Where a value of JSON shape holds a NUL character, half a surrogate pair or too deep a nesting, or None."""
    waiting: list[tuple[Path, object]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if len(path) > MAX_DEPTH or (isinstance(item, str) and not _storable(item)):
            return path
        if isinstance(item, Mapping):
            for key, child in cast(Mapping[object, object], item).items():
                if not _storable(str(key)):
                    return path
                waiting.append(((*path, str(key)), child))
        elif isinstance(item, (list, tuple)):
            waiting += [((*path, index), child) for index, child in enumerate(cast(Sequence[object], item))]
    return None


def require_storable(value: object) -> None:
    """Raises ValueError naming where `find_unstorable` found something."""
    if (place := find_unstorable(value)) is not None:
        where = ".".join(str(part) for part in place[:3]) or "the body"
        raise ValueError(f"{where} holds a NUL character, half a surrogate pair, or nests too deeply")


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def slug(name: str) -> str:
    """A name that a client can type, from one that a person chose; may be empty."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:128]


def is_id(text: str) -> bool:
    """True for what could be the id of a model or a key."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
