"""API keys."""

from cortex_registry.adapters.keys import PostgresKeys
from cortex_registry.entrypoints.routes.keys import KeyRoutes
from cortex_registry.handlers.keys import KeyService
from cortex_registry.wiring.core import Core, Part


def key_service(core: Core) -> KeyService:
    """Commands and queries on keys."""
    return KeyService(PostgresKeys(core.database), clock=core.clock)


def keys_part(service: KeyService) -> Part:
    """Routes of keys."""
    return Part(routers=(KeyRoutes(service).router(),))
