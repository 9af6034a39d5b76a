"""What holds for every route alike: answers to creates that may be repeated."""

from cortex_registry.adapters.idempotency import PostgresIdempotency
from cortex_registry.wiring.core import Core, Part


def idempotency_store(core: Core) -> PostgresIdempotency:
    """Where answers to creates are kept."""
    return PostgresIdempotency(core.database, core.settings.secret_key, core.settings.secret_keys_old)


def quality_part(store: PostgresIdempotency) -> Part:
    """The task that forgets old answers."""
    return Part(tasks={"idempotency": store.run})
