"""JSON from files and servers, given a type. What has another shape becomes empty."""

import json
from typing import Any, cast


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object; empty when the text is none."""
    try:
        return as_object(json.loads(text))
    except ValueError:
        return {}


def as_object(value: object) -> dict[str, Any]:
    """The value when it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value when it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []
