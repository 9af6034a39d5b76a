"""`GET /sd/targets`: HTTP service discovery of Prometheus (prometheus.io/docs/prometheus/latest/http_sd/)."""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from fastapi import APIRouter

from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState

TargetGroup = dict[str, list[str] | dict[str, str]]
Groups = Callable[[], list[TargetGroup]]


def discovery_router(groups: Groups) -> APIRouter:
    """Like the other operations endpoints: no secret in the answer, no key asked; keep the port private."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sd/targets")
    async def targets() -> list[TargetGroup]:
        """What to scrape beside the services that Prometheus knows by name."""
        return groups()

    return router


def member_groups(addresses: Mapping[str, str]) -> list[TargetGroup]:
    """Every member of health: each shows the engines it probes, so that all of them are the whole."""
    return [
        {
            "targets": [address],
            "labels": {"job": "cortex-health", "cortex_member": name, "__metrics_path__": "/metrics"},
        }
        for name, address in sorted(addresses.items())
    ]


def vllm_groups(
    replicas: Iterable[ReplicaDocumentV1], model_name: Callable[[ReplicaDocumentV1], str | None]
) -> list[TargetGroup]:
    """vLLM engines, whose own metrics need no key. Not llama-server: it asks for one, and is read by one reader only."""
    found: list[TargetGroup] = []
    for replica in sorted(replicas, key=lambda item: item.id):
        parts = urlsplit(replica.endpoint or "")
        if replica.engine_type is not EngineType.VLLM or replica.state is not ReplicaState.STARTED or not parts.netloc:
            continue
        labels = {
            "job": "cortex-engine",
            "engine_type": replica.engine_type.value,
            "model": model_name(replica) or replica.model_id,
            "replica": replica.id,
            "__scheme__": parts.scheme or "http",
            "__metrics_path__": f"{parts.path.rstrip('/')}/metrics",
        }
        found.append({"targets": [parts.netloc.rpartition("@")[2]], "labels": labels})
    return found
