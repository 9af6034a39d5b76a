"""Usage records: consumed from the stream, reported over HTTP."""

from cortex_registry.adapters.usage import PostgresUsage
from cortex_registry.entrypoints.events import attach_usage
from cortex_registry.entrypoints.routes.usage import UsageRoutes
from cortex_registry.handlers.usage import UsageBatcher
from cortex_registry.wiring.core import Core, Part


def usage_part(core: Core) -> Part:
    """Routes of usage, and the consumer of its records."""
    settings = core.settings
    usage = PostgresUsage(core.database)
    batcher = UsageBatcher(usage, batch_size=settings.usage_batch_size, wait_s=settings.usage_batch_wait_s)
    attach_usage(core.broker, batcher, concurrency=settings.usage_batch_size)
    return Part(routers=(UsageRoutes(usage).router(),), fed={"usage-batches": batcher.run})
