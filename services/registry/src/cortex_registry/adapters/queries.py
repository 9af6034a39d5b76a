"""Named SQL from the package's sql/ folder."""

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(name: str) -> Mapping[str, str]:
    """The queries of `sql/<name>.sql`, each after a line `-- name: <query>`."""
    text = resources.files("cortex_registry").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return MappingProxyType(dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True)))
