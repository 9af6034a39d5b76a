"""The API key of a home: made once, kept in a private file."""

import json
from pathlib import Path

from cortex_cli.adapters.admin_api import AdminApi
from cortex_cli.shapes import parse_object
from cortex_cli.stack.files import write_private

NAME = "embedded"


async def ensure_key(api: AdminApi, file: Path) -> str:
    """The kept key when the registry still knows it and has not revoked it, else a new one.

    Raises:
        CliError: the registry refuses.
    """
    kept = _read(file)
    if kept is not None and any(key.get("id") == kept[0] and not key.get("revoked_at") for key in await api.keys()):
        return kept[1]
    made = await api.create_key({"name": NAME})
    write_private(file, json.dumps({"id": made["id"], "key": made["key"]}))
    return str(made["key"])


def _read(file: Path) -> tuple[str, str] | None:
    try:
        content = parse_object(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    return (str(content["id"]), str(content["key"])) if "id" in content and "key" in content else None
