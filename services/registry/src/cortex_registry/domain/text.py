"""Text that Postgres, JSON and NATS can all carry."""

def find_unstorable(value: object, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """Where a value of JSON shape holds a NUL character or half a surrogate pair, or None."""
    match value:
        case str():
            return None if _storable(value) else path
        case dict():
            for key, item in value.items():
                if not _storable(str(key)):
                    return path
                if (found := find_unstorable(item, (*path, str(key)))) is not None:
                    return found
        case list() | tuple():
            for index, item in enumerate(value):
                if (found := find_unstorable(item, (*path, index))) is not None:
                    return found
        case _:
            return None
    return None


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def slug(name: str) -> str:
    """A name that a client can type, from one that a person chose; may be empty."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:128]
