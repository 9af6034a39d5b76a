"""Text that Postgres, JSON and NATS can all carry."""

import uuid
from collections.abc import Mapping, Sequence
from typing import cast


def find_unstorable(value: object, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """Where a value of JSON shape holds a NUL character or half a surrogate pair, or None."""
    if isinstance(value, str):
        return None if _storable(value) else path
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in cast(Mapping[object, object], value).items()]
        if not all(_storable(key) for key, _ in items):
            return path
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(cast(Sequence[object], value)))
    else:
        return None
    found = (find_unstorable(item, (*path, key)) for key, item in items)
    return next((place for place in found if place is not None), None)


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
