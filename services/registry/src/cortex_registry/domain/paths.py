"""Paths below the models root: the cheap part of the check, before anybody looks at a disk."""

from pathlib import PurePosixPath

from cortex_kit.errors import DomainError

MAX_LENGTH = 1024


def below_root(path: str, field: str, root: str | None = None) -> str:
    """The path relative to the models root.

    An absolute path is accepted only when it lies below `root`. Nothing is looked up: symbolic links are judged by
    whoever opens the file.

    Raises:
        DomainError: 422 `path_outside_models_root` or `invalid_path`, naming the field.
    """
    if not path.strip() or len(path) > MAX_LENGTH or any(ord(character) < 32 for character in path):
        raise _refusal("invalid_path", field, "is empty, too long, or holds control characters")
    if path.startswith("-"):
        raise _refusal("invalid_path", field, "must not begin with a dash")
    if ".." in path.replace("\\", "/").split("/"):
        raise _refusal("path_outside_models_root", field, "must not contain '..'")
    pure = PurePosixPath(path)
    if pure.is_absolute():
        if root is None or not pure.is_relative_to(root) or pure == PurePosixPath(root):
            raise _refusal("path_outside_models_root", field, "must be relative to the models directory")
        pure = pure.relative_to(root)
    if not pure.parts:
        raise _refusal("invalid_path", field, "names no file")
    return str(pure)


def _refusal(code: str, field: str, what: str) -> DomainError:
    message = f"{field} {what}."
    return DomainError(
        code, message, status=422, details={"errors": [{"field": field, "code": code, "message": message}]}
    )
