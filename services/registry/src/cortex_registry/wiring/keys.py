"""API keys."""

from datetime import timedelta

from cortex_registry.adapters.keys import PostgresKeys
from cortex_registry.domain.keys import SelfService
from cortex_registry.entrypoints.routes.keys import KeyRoutes
from cortex_registry.handlers.keys import KeyService
from cortex_registry.settings import Settings
from cortex_registry.wiring.core import Core, Part


def key_service(core: Core) -> KeyService:
    """Commands and queries on keys."""
    return KeyService(PostgresKeys(core.database), clock=core.clock, self_service=_self_service(core.settings))


def keys_part(service: KeyService) -> Part:
    """Routes of keys."""
    return Part(routers=(KeyRoutes(service, service.clock).router(),))


def _self_service(settings: Settings) -> SelfService:
    return SelfService(
        scopes=frozenset(settings.self_key_scopes),
        max_keys=settings.self_keys,
        max_age=timedelta(days=settings.self_key_days) if settings.self_key_days else None,
        limits={
            "requests_per_minute": settings.self_key_requests_per_minute,
            "tokens_per_minute": settings.self_key_tokens_per_minute,
            "max_concurrent_streams": settings.self_key_max_concurrent_streams,
            "tokens_per_month": settings.self_key_tokens_per_month,
        },
    )
