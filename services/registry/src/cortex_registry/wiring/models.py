"""Models: routes, relay of changes, projected state."""

import os

from fastapi import APIRouter

from cortex_kit.lease import Lease
from cortex_registry.adapters.hugging_face import HuggingFaceConfigurations
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.nats import NatsEngineLogs, NatsEvents, NatsInspector, NatsMirror
from cortex_registry.adapters.operations import NatsLibrary, NatsOperations
from cortex_registry.adapters.outbox import PostgresOutboxSource
from cortex_registry.adapters.recipes import PostgresRecipes
from cortex_registry.adapters.revisions import PostgresRevisions
from cortex_registry.entrypoints.routes.library import Installation, LibraryRoutes
from cortex_registry.entrypoints.routes.models import ModelRoutes
from cortex_registry.entrypoints.routes.models_portable import PortableRoutes
from cortex_registry.entrypoints.routes.models_revisions import RevisionRoutes
from cortex_registry.entrypoints.routes.models_runtime import ModelRuntimeRoutes
from cortex_registry.entrypoints.routes.recipes import RecipeRoutes
from cortex_registry.handlers.library import Library
from cortex_registry.handlers.models import ModelRules, ModelService
from cortex_registry.handlers.models_dry_run import DryRuns
from cortex_registry.handlers.models_editor import ModelEditor
from cortex_registry.handlers.models_revisions import ModelRevisions
from cortex_registry.handlers.models_runtime import ModelRuntime
from cortex_registry.handlers.portable import PortableService
from cortex_registry.handlers.projector import Projector
from cortex_registry.handlers.projector import Views as ProjectorViews
from cortex_registry.handlers.recipes import RecipeService
from cortex_registry.handlers.relay import Relay, RelayTiming
from cortex_registry.wiring.core import Core, Part

PROJECTOR_LEASE = "registry-projector"


def model_editor(core: Core) -> ModelEditor:
    """What every act on models shares."""
    settings = core.settings
    return ModelEditor(
        PostgresModels(core.database),
        NatsInspector(core.bus, settings.inspector_timeout_s),
        rules=ModelRules(settings.secret_key, settings.engines, core.models_root),
        clock=core.clock,
    )


def model_service(core: Core) -> ModelService:
    """Commands and queries on models."""
    return ModelService(model_editor(core), core.observation)


def models_part(core: Core, service: ModelService) -> Part:
    """Routes of models, and the tasks that publish their changes and states."""
    lease = Lease(core.bus, PROJECTOR_LEASE, holder=core.settings.instance)
    return Part(
        routers=_routers(core, service),
        tasks={"relay": _relay(core).run, "lease": lease.run, "projector": _projector(core, lease).run},
    )


def _routers(core: Core, service: ModelService) -> tuple[APIRouter, ...]:
    """The routes with a path of their own come first: a reference matches any path below /models."""
    settings, editor, observation = core.settings, model_editor(core), core.observation
    operations = NatsOperations(
        core.bus, dry_run_timeout_s=settings.dry_run_timeout_s, test_timeout_s=settings.test_timeout_s
    )
    library = NatsLibrary(core.bus, settings.inspector_timeout_s)
    logs = NatsEngineLogs(core.bus, settings.logs_timeout_s)
    runtime = ModelRuntime(editor, service, observation, logs, operations)
    dry_runs = DryRuns(editor, operations, library, observation)
    revisions = ModelRevisions(editor, PostgresRevisions(core.database), observation)
    recipes = RecipeService(PostgresRecipes(core.database), service, models_root=core.models_root, clock=core.clock)
    return (
        _library_routes(core, library).router(),
        ModelRuntimeRoutes(service, runtime, dry_runs).router(),
        RevisionRoutes(revisions).router(),
        PortableRoutes(PortableService(editor, service)).router(),
        ModelRoutes(service).router(),
        RecipeRoutes(recipes).router(),
    )


def _library_routes(core: Core, inspector: NatsLibrary) -> LibraryRoutes:
    settings = core.settings
    hub_url = settings.hub_url if settings.hub_lookups else None
    configurations = HuggingFaceConfigurations(settings.models_dir, hub_url, settings.hub_timeout_s)
    library = Library(inspector, configurations, core.observation, core.models_root)
    readable = settings.models_dir is not None and os.access(settings.models_dir, os.R_OK | os.X_OK)
    installation = Installation(settings.engines, core.models_root, readable, settings.max_body_bytes)
    return LibraryRoutes(library, core.observation, installation)


def _relay(core: Core) -> Relay:
    settings = core.settings
    return Relay(
        PostgresOutboxSource(core.database),
        NatsMirror(core.bus),
        NatsEvents(core.bus, source=core.source),
        core.provisioner,
        clock=core.clock,
        timing=RelayTiming(settings.outbox_poll_s, settings.outbox_batch_size, settings.resync_s),
    )


def _projector(core: Core, lease: Lease) -> Projector:
    views = core.views
    projector = Projector(
        ProjectorViews(views.models, views.replicas, views.verdicts),
        PostgresModels(core.database),
        lease,
        clock=core.clock,
        settle_s=core.settings.state_settle_s,
        grace_s=core.settings.state_grace_s,
    )
    views.models.on_change(projector.touch)
    views.replicas.on_change(projector.touch)
    views.verdicts.on_change(projector.touch)
    core.bus.on_reconnect(projector.hush)
    return projector
