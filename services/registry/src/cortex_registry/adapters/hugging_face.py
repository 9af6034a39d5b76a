"""config.json of Hugging Face models: from the models folder, or from the Hub where that is allowed."""

import asyncio
import json
import os
from pathlib import Path
from typing import cast

import httpx
from pydantic import JsonValue

from cortex_kit.errors import DomainError
from cortex_registry.errors import UnavailableError

MAX_BYTES = 1024 * 1024
READ_S = 5.0


class HuggingFaceConfigurations:
    """Configurations. `hub_url` is None where the Hub must not be asked."""

    def __init__(self, models_dir: Path | None, hub_url: str | None, hub_timeout_s: float) -> None:
        self._models_dir = models_dir
        self._hub_url = hub_url.rstrip("/") if hub_url is not None else None
        self._hub_timeout_s = hub_timeout_s

    async def local(self, path: str) -> dict[str, JsonValue]:
        root = self._models_dir
        if root is None:
            message = "This registry does not know the models folder (CORTEX_MODELS_DIR)."
            raise DomainError("models_dir_unknown", message, status=409)
        try:
            async with asyncio.timeout(READ_S):
                text = await asyncio.to_thread(_read, root, path)
        except TimeoutError as error:
            raise UnavailableError("models_dir_unavailable", "The models folder does not answer.") from error
        except OSError as error:
            message = f"There is no readable config.json in {path!r}."
            raise DomainError("file_not_found", message, status=404) from error
        return _parsed(text)

    async def hub(self, repo_id: str) -> dict[str, JsonValue]:
        if self._hub_url is None:
            message = (
                "Looking repositories up on the Hugging Face Hub is off here (CORTEX_REGISTRY_HUB_LOOKUPS). "
                "Give local_path, or type the options."
            )
            raise DomainError("hub_lookups_off", message, status=409)
        url = f"{self._hub_url}/{repo_id}/resolve/main/config.json"
        body = b""
        try:
            async with (
                asyncio.timeout(self._hub_timeout_s),
                httpx.AsyncClient(timeout=self._hub_timeout_s, follow_redirects=True) as client,
                client.stream("GET", url) as response,
            ):
                if response.status_code in (401, 403, 404):
                    message = f"The Hub shows no config.json of {repo_id!r} ({response.status_code})."
                    raise DomainError("repo_not_found", message, status=404)
                response.raise_for_status()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        break
        except (httpx.HTTPError, TimeoutError) as error:
            message = f"The Hugging Face Hub does not answer ({type(error).__name__}). Try again in a moment."
            raise UnavailableError("hub_unavailable", message) from error
        return _parsed(body)


def _read(root: Path, path: str) -> bytes:
    """The file, unless a link leads out of the models folder. Blocks."""
    real_root = root.resolve(strict=True)
    file = (real_root / path / "config.json").resolve(strict=True)
    if not file.is_relative_to(real_root):
        raise DomainError("path_outside_models_root", "local_path leaves the models folder.", status=422)
    # A pipe or device would block for ever: only what is a plain file is opened.
    if not file.is_file():
        raise FileNotFoundError(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _parsed(text: bytes) -> dict[str, JsonValue]:
    try:
        value: object = json.loads(text) if len(text) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DomainError("invalid_config", "config.json is no JSON object of a sane size.", status=422)
    return cast("dict[str, JsonValue]", value)
