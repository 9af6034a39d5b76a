"""The whole at a glance."""

from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.overview import PostgresThroughputs
from cortex_registry.entrypoints.routes.overview import OverviewRoutes
from cortex_registry.handlers.overview import Overview
from cortex_registry.wiring.core import Core, Part


def overview_part(core: Core) -> Part:
    """Routes that only read."""
    throughputs = PostgresThroughputs(core.database)
    overview = Overview(PostgresModels(core.database), core.observation, throughputs, clock=core.clock)
    return Part(routers=(OverviewRoutes(overview).router(),))
