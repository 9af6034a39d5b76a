"""Usage records: consumed from the stream, kept in order, reported over HTTP."""

from datetime import timedelta

from cortex_kit.lease import Lease
from cortex_registry.adapters.budgets import JetStreamBudgets, PostgresSpending
from cortex_registry.adapters.usage import PostgresUsage
from cortex_registry.adapters.usage_reports import PostgresUsageReports
from cortex_registry.adapters.usage_upkeep import PostgresUsageUpkeep
from cortex_registry.entrypoints.events import attach_usage
from cortex_registry.entrypoints.routes.usage import UsageRoutes
from cortex_registry.entrypoints.routes.usage_export import UsageExportRoutes
from cortex_registry.entrypoints.routes.usage_latency import UsageLatencyRoutes
from cortex_registry.handlers.budgets import BudgetKeeper
from cortex_registry.handlers.usage import BatchRules, UsageBatcher
from cortex_registry.handlers.usage_upkeep import UpkeepRules, UsageUpkeep
from cortex_registry.wiring.core import Core, Part

BUDGETS_LEASE = "registry-budgets"
MESSAGES_AT_ONCE = 16
"""At least so many usage messages are stored together; one may hold as many records as a gateway batches."""


def usage_part(core: Core) -> Part:
    """Routes of usage, the consumer of its records, and its upkeep."""
    settings = core.settings
    retention = _days(settings.usage_retention_days)
    rules = BatchRules(settings.usage_batch_size, settings.usage_batch_wait_s, retention)
    batcher = UsageBatcher(PostgresUsage(core.database), rules, core.clock)
    attach_usage(core.broker, batcher, concurrency=max(MESSAGES_AT_ONCE, settings.usage_batch_size // 16))
    reports = PostgresUsageReports(
        core.database, core.clock, retention=retention, timeout_s=settings.usage_query_timeout_s
    )
    upkeep = UsageUpkeep(
        PostgresUsageUpkeep(core.database),
        core.clock,
        UpkeepRules(
            settings.usage_upkeep_s, retention, _sums(settings.usage_rollup_days, settings.usage_retention_days)
        ),
    )
    routers = (
        UsageRoutes(reports, core.clock).router(),
        UsageLatencyRoutes(reports, core.clock).router(),
        UsageExportRoutes(reports, core.clock, at_once=settings.usage_exports).router(),
    )
    lease = Lease(core.bus, BUDGETS_LEASE, holder=settings.instance)
    budgets = BudgetKeeper(
        PostgresSpending(core.database),
        JetStreamBudgets(core.bus),
        lease,
        core.clock,
        lambda: core.provisioner.generation,
    )
    return Part(
        routers=routers,
        tasks={"usage-upkeep": upkeep.run, "budgets-lease": lease.run, "budgets": budgets.run},
        fed={"usage-batches": batcher.run},
    )


def _sums(days: int, records: int) -> timedelta | None:
    """Sums are kept at least as long as the records they are of."""
    return _days(max(days, records)) if days and records else None


def _days(days: int) -> timedelta | None:
    return timedelta(days=days) if days else None
