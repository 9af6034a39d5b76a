"""Endpoints that others run."""

from collections.abc import Sequence

from cortex_contracts.enums import EngineType, Task
from cortex_kit.lease import Lease
from cortex_kit.logging import get_logger
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.upstreams import HttpCatalogue, NatsProbes, PostgresUpstreams
from cortex_registry.domain.upstream_urls import base_url
from cortex_registry.entrypoints.routes.upstreams import UpstreamRoutes
from cortex_registry.handlers.upstreams import UpstreamService
from cortex_registry.handlers.upstreams_discovery import Announced, Discovery
from cortex_registry.settings import Settings
from cortex_registry.wiring.core import Core, Part

log = get_logger()
LEASE = "registry-upstreams"


def upstreams_part(core: Core) -> Part:
    """Routes of upstreams, and the task that registers those of the environment."""
    models = PostgresModels(core.database)
    service = UpstreamService(
        models,
        core.observation,
        PostgresUpstreams(core.database),
        NatsProbes(core.bus),
        secret_key=core.settings.secret_key,
        clock=core.clock,
    )
    lease = Lease(core.bus, LEASE, holder=core.settings.instance)
    discovery = Discovery(announced_in(core.settings), HttpCatalogue(), service, models, lease)
    return Part(
        routers=(UpstreamRoutes(service).router(),),
        tasks={"upstreams-lease": lease.run, "upstreams-discovery": discovery.run},
    )


def announced_in(settings: Settings) -> Sequence[Announced]:
    """What the environment names; an address that cannot be one is said in the log and left out."""
    found: list[Announced] = []
    for variable, urls, engine_type, task in (
        ("VLLM_GEN_URLS", settings.vllm_gen_urls, EngineType.VLLM, Task.GENERATE),
        ("VLLM_EMB_URLS", settings.vllm_emb_urls, EngineType.VLLM, Task.EMBED),
        ("LLAMACPP_GEN_URLS", settings.llamacpp_gen_urls, EngineType.LLAMACPP, Task.GENERATE),
    ):
        for position, url in enumerate(urls):
            try:
                found.append(Announced(variable, base_url(url), engine_type, task))
            except ValueError as error:
                log.error("upstream_url_refused", variable=variable, position=position, reason=str(error))
    return found
