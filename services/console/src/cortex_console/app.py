"""Composition root of the console."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cortex_console import metrics
from cortex_console.adapters import nicegui_setup
from cortex_console.adapters.event_feed import EventHub
from cortex_console.adapters.http_client import new_client
from cortex_console.adapters.nicegui_files import opening_files
from cortex_console.adapters.playground_keys import PlaygroundKeys
from cortex_console.components.page import Installation
from cortex_console.entrypoints.assets import Assets
from cortex_console.entrypoints.downloads import downloads_router
from cortex_console.entrypoints.security import SameOrigin, SecurityHeaders
from cortex_console.entrypoints.sessions import SessionRoutes
from cortex_console.pages.catalogue import PAGES
from cortex_console.pages.rendering import register
from cortex_console.settings import Settings
from cortex_kit.ops import ops_router
from cortex_kit.proxies import ForwardedFor
from cortex_kit.runner import Service

NAME = "console"


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Everything the console consists of; starts nothing."""
    hub, assets, playground_keys = EventHub(), Assets(), PlaygroundKeys()
    async with (
        new_client(
            settings.registry_url, timeout_s=settings.api_timeout_s, connections=settings.api_connections
        ) as api,
        new_client(settings.gateway_url, timeout_s=600.0, connections=settings.api_connections) as gateway,
    ):
        installation = Installation(api, gateway, settings.shown_gateway_url, hub, assets.base, playground_keys)
        http = FastAPI(title=NAME, openapi_url=None, docs_url=None, redoc_url=None)
        http.include_router(ops_router({"pages": nicegui_setup.readiness}))
        http.include_router(assets.router())
        sessions = SessionRoutes(
            api,
            assets.base,
            opening=tuple(opening_files()),
            before_end=playground_keys.end,
            always_secure=settings.cookie_secure,
        )
        http.include_router(sessions.router())
        http.include_router(downloads_router(api))
        register(PAGES, installation)
        nicegui_setup.install(http, reconnect_timeout_s=settings.reconnect_timeout_s)
        http.add_middleware(SameOrigin, allowed=settings.allowed_origins)
        http.add_middleware(SecurityHeaders)
        http.add_middleware(ForwardedFor, trusted=settings.trusted_proxies)
        metrics.CLIENTS.set_function(nicegui_setup.open_pages)
        metrics.FEEDS.set_function(lambda: hub.connections)
        yield Service(
            name=NAME,
            http=http,
            tasks={"events": hub.run},
            uvicorn_options={"lifespan": "on", "ws": "websockets-sansio", "log_level": "warning"},
        )
