"""The OpenAPI description of the admin API, as it is committed in docs/api/openapi.json."""

import asyncio
import json
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr

from cortex_registry.app import build
from cortex_registry.settings import Settings


def render_openapi() -> str:
    """The document as text. Wires the service as it is run, and connects to nothing."""
    return json.dumps(asyncio.run(_document()), indent=1, sort_keys=True) + "\n"


async def _document() -> dict[str, Any]:
    settings = Settings(
        nats_url=SecretStr("nats://127.0.0.1:4222"),
        secret_key=SecretStr("0" * 32),
        database_url=SecretStr("postgresql://127.0.0.1/cortex"),
        admin_token=SecretStr("0" * 32),
    )
    async with build(settings) as service:
        assert isinstance(service.http, FastAPI)
        return service.http.openapi()
