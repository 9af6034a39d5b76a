"""Answers about upstreams."""

from datetime import datetime

from pydantic import BaseModel, Field, JsonValue

from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import DesiredState, EngineType, ModelState, RoutingPolicy, Task, Verdict
from cortex_contracts.external import EXTERNAL_NODE
from cortex_registry.handlers.observation import Observed, ReplicaStatus
from cortex_registry.handlers.upstreams import Upstream, VerdictChange


class VerdictChangeAnswer(BaseModel):
    """One turn of an endpoint's health."""

    at: datetime
    healthy: bool
    reason: str

    @classmethod
    def of(cls, change: VerdictChange) -> "VerdictChangeAnswer":
        return cls(at=change.at, healthy=change.healthy, reason=change.reason)


class UpstreamAnswer(BaseModel):
    """One endpoint that the gateway may route to, run by Cortex or by others."""

    id: str = Field(description="replica id")
    model_id: str
    model: str = Field(description="the name clients ask for")
    category: Task
    engine_type: EngineType
    external: bool
    node: str
    url: str | None
    verdict: Verdict | None = Field(description="null while it has not been probed")
    reason: str
    since: datetime | None
    streak: int | None
    load: EngineLoad | None
    history: list[VerdictChangeAnswer] = Field(description="the last 50 changes, newest first")

    @classmethod
    def of(cls, upstream: Upstream) -> "UpstreamAnswer":
        document, replica = upstream.observed.model.document, upstream.status.replica
        verdict = upstream.status.verdict
        return cls(
            id=replica.id,
            model_id=document.id,
            model=document.served_model_name,
            category=document.task,
            engine_type=document.engine_type,
            external=replica.node == EXTERNAL_NODE,
            node=replica.node,
            url=replica.endpoint,
            verdict=verdict.verdict if verdict is not None else None,
            reason=verdict.reason if verdict is not None else "not probed yet",
            since=verdict.since if verdict is not None else None,
            streak=verdict.streak if verdict is not None else None,
            load=verdict.load if verdict is not None else None,
            history=[VerdictChangeAnswer.of(change) for change in upstream.history],
        )


class UpstreamList(BaseModel):
    items: list[UpstreamAnswer]


class EndpointAnswer(BaseModel):
    """One endpoint of an external model; its key never."""

    url: str
    served_name: str | None
    has_api_key: bool
    verdict: Verdict | None
    reason: str | None
    since: datetime | None


class ExternalAnswer(BaseModel):
    """A model that is routed to, not run."""

    id: str
    served_model_name: str
    name: str
    aliases: list[str]
    task: Task
    engine_type: EngineType
    enabled: bool
    endpoints: list[EndpointAnswer]
    request_defaults: dict[str, JsonValue]
    request_timeout_s: float
    stream_timeout_s: float
    routing_policy: RoutingPolicy
    fallbacks: list[str]
    state: ModelState | None
    reason: str
    since: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, observed: Observed) -> "ExternalAnswer":
        model, document = observed.model, observed.model.document
        statuses = {status.replica.ordinal: status for status in observed.replicas}
        return cls(
            id=document.id,
            served_model_name=document.served_model_name,
            name=document.name,
            aliases=list(document.aliases),
            task=document.task,
            engine_type=document.engine_type,
            enabled=document.desired_state is DesiredState.RUNNING,
            endpoints=[
                _endpoint(one.url, one.served_name, one.api_key_sealed is not None, statuses.get(index))
                for index, one in enumerate(document.external)
            ],
            request_defaults=document.request_defaults,
            request_timeout_s=document.request_timeout_s,
            stream_timeout_s=document.stream_timeout_s,
            routing_policy=document.routing_policy,
            fallbacks=list(document.fallbacks),
            state=observed.state.state if observed.state is not None else None,
            reason=observed.reason,
            since=observed.state.since if observed.state is not None else None,
            version=model.version,
            created_at=model.created_at,
            updated_at=model.updated_at,
        )


def _endpoint(url: str, served_name: str | None, has_api_key: bool, status: ReplicaStatus | None) -> EndpointAnswer:
    verdict = status.verdict if status is not None else None
    return EndpointAnswer(
        url=url,
        served_name=served_name,
        has_api_key=has_api_key,
        verdict=verdict.verdict if verdict is not None else None,
        reason=verdict.reason if verdict is not None else None,
        since=verdict.since if verdict is not None else None,
    )


class RefreshAnswer(BaseModel):
    """What is being probed now."""

    replicas: list[str]


class OldEntry(BaseModel):
    """An entry of the routing registry of old."""

    url: str
    task: Task
