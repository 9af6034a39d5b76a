"""The whole at a glance."""

import os
from collections.abc import Callable

from cortex_registry.adapters.images import NatsImages
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.overview import PostgresThroughputs
from cortex_registry.entrypoints.routes.installation import InstallationRoutes
from cortex_registry.entrypoints.routes.overview import OverviewRoutes
from cortex_registry.handlers.installation import HostTrends, Installation, TrendRules
from cortex_registry.handlers.overview import Overview
from cortex_registry.settings import Settings
from cortex_registry.wiring.core import Core, Part


def overview_part(core: Core) -> Part:
    """Routes that only read, and the memory of the last hour."""
    settings = core.settings
    models = PostgresModels(core.database)
    overview = Overview(models, core.observation, PostgresThroughputs(core.database), clock=core.clock)
    installation = Installation(models, core.observation, NatsImages(core.bus), _features(settings))
    rules = TrendRules(settings.trends_minutes, settings.trends_step_s)
    trends = HostTrends(core.observation, rules, core.clock)
    return Part(
        routers=(
            OverviewRoutes(overview).router(),
            InstallationRoutes(installation, trends, settings.engines).router(),
        ),
        tasks={"host-trends": trends.run},
    )


def _features(settings: Settings) -> tuple[tuple[str, Callable[[], str | None]], ...]:
    def models_folder() -> str | None:
        folder = settings.models_dir
        if folder is None:
            return "CORTEX_MODELS_DIR is not set for the registry"
        return None if os.access(folder, os.R_OK | os.X_OK) else f"{folder} cannot be read by the registry"

    return (
        ("models_folder", models_folder),
        ("backups", lambda: None if settings.export_dir is not None else "CORTEX_EXPORT_DIR is not set"),
        ("hub_lookups", lambda: None if settings.hub_lookups else "CORTEX_REGISTRY_HUB_LOOKUPS is off"),
        ("self_service_keys", lambda: None if settings.self_keys else "CORTEX_REGISTRY_SELF_KEYS is 0"),
    )
