"""The whole: hosts, readiness, GGUF headers."""

from cortex_registry.adapters.nats import NatsInspector
from cortex_registry.entrypoints.routes.system import SystemRoutes, SystemSources
from cortex_registry.handlers.keys import KeyService
from cortex_registry.handlers.models import ModelService
from cortex_registry.wiring.core import Core, Part


def system_part(core: Core, models: ModelService, keys: KeyService) -> Part:
    """Routes that answer with Postgres or NATS away, too."""
    inspector = NatsInspector(core.bus, core.settings.inspector_timeout_s)
    sources = SystemSources(models, keys, core.observation, inspector, core.readiness, core.models_root)
    return Part(routers=(SystemRoutes(sources).router(),))
