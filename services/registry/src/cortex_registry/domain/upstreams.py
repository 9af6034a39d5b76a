"""Models whose engines others run: what an administrator may say of them, and what becomes of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StrictBool,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ExternalEndpoint, ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import DesiredState, EngineType, RoutingPolicy, Task
from cortex_kit.errors import DomainError
from cortex_registry.domain.model import MAX_DOCUMENT_BYTES, Model
from cortex_registry.domain.specification import ServedName, describe_errors, invalid_request
from cortex_registry.domain.text import is_id, require_storable, slug
from cortex_registry.domain.upstream_urls import MAX_URL, base_url

_DAY_S = 86_400
MAX_ENDPOINTS = 16
_NAME_THERE = r"^[!-~][ -~]{0,254}[!-~]$|^[!-~]$"
Sealer = Callable[[str], str]


class EndpointSpecification(BaseModel):
    """One endpoint."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"url": "http://10.0.0.5:8000"}]}
    )

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] = Field(
        description="base URL, with or without /v1, e.g. http://10.0.0.5:8000"
    )
    served_name: str | None = Field(
        default=None, max_length=256, pattern=_NAME_THERE, description="the model's name there, when it is another one"
    )
    api_key: SecretStr | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        json_schema_extra={"writeOnly": True},
        description="sent as bearer token; kept sealed, never shown",
    )

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        return base_url(value)

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and any(not "!" <= character <= "~" for character in value.get_secret_value()):
            raise ValueError("a key has visible ASCII characters only")
        return value


class UpstreamSpecification(BaseModel):
    """A model that is routed to, not run."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"served_model_name": "qwen3-32b", "endpoints": [{"url": "http://10.0.0.5:8000"}]}]
        },
    )

    served_model_name: ServedName = Field(description="what clients ask for")
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)] | None = Field(
        default=None, description="what people call it; the served name unless given"
    )
    aliases: tuple[ServedName, ...] = Field(default=(), max_length=32, description="further names clients may ask for")
    task: Task = Field(default=Task.GENERATE, description="what the model is for")
    engine_type: EngineType = Field(default=EngineType.VLLM, description="what runs there")
    endpoints: tuple[EndpointSpecification, ...] = Field(min_length=1, max_length=MAX_ENDPOINTS)
    enabled: StrictBool = Field(default=True, description="whether requests are routed to it")
    request_defaults: dict[str, JsonValue] = Field(
        default_factory=dict, description='parameters for requests that do not set them, e.g. {"temperature": 0.2}'
    )
    request_timeout_s: float = Field(default=300.0, gt=0, le=_DAY_S)
    stream_timeout_s: float = Field(default=300.0, gt=0, le=_DAY_S)
    routing_policy: RoutingPolicy = RoutingPolicy.LEAST_LOADED
    fallbacks: tuple[ServedName, ...] = Field(default=(), max_length=16)

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value

    @field_validator("served_model_name", "aliases", "fallbacks")
    @classmethod
    def _names_are_no_ids(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if any(is_id(name) for name in ((value,) if isinstance(value, str) else value)):
            raise ValueError("must not look like an id")
        return value

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        names = (self.served_model_name, *self.aliases)
        if len(set(names)) != len(names):
            raise ValueError("aliases must differ from each other and from served_model_name")
        places = [(endpoint.url, endpoint.served_name) for endpoint in self.endpoints]
        if len(set(places)) != len(places):
            raise ValueError("endpoints must not repeat one")
        return self


_FIELDS = tuple(
    field
    for field in UpstreamSpecification.model_fields
    if field not in ("endpoints", "enabled", "engine_type", "name")
)


def describe_upstream(document: ModelDocumentV1) -> dict[str, JsonValue]:
    """The form of the API, without secrets: for answers, patches and the audit log."""
    fields: dict[str, JsonValue] = document.model_dump(mode="json", include={*_FIELDS, "engine_type", "name"})
    endpoints: list[JsonValue] = [
        {"url": endpoint.url, "served_name": endpoint.served_name, "has_api_key": endpoint.api_key_sealed is not None}
        for endpoint in document.external
    ]
    fields["enabled"] = document.desired_state is DesiredState.RUNNING
    fields["endpoints"] = endpoints
    return fields


def merge_upstream(document: ModelDocumentV1, patch: Mapping[str, JsonValue]) -> UpstreamSpecification:
    """The specification after a patch: a field replaces the old one whole, null puts its default back.

    Raises:
        DomainError: 422.
    """
    if patch.get("engine_type", document.engine_type.value) != document.engine_type.value:
        message = "engine_type cannot change: register another upstream."
        raise invalid_request([{"field": "engine_type", "code": "immutable", "message": message}])
    fields = describe_upstream(document)
    fields["endpoints"] = [{"url": endpoint.url, "served_name": endpoint.served_name} for endpoint in document.external]
    merged = {field: value for field, value in (fields | dict(patch)).items() if value is not None}
    try:
        return UpstreamSpecification.model_validate(merged)
    except ValidationError as error:
        raise invalid_request(describe_errors(error.errors(include_url=False))) from None


def new_upstream(specification: UpstreamSpecification, *, model_id: ModelId, now: datetime, seal: Sealer) -> Model:
    """Version 1. Raises DomainError 422 `model_too_large`."""
    document = _document(
        specification,
        {"id": model_id, "aggregateversion": 1, "engine_type": specification.engine_type},
        tuple(_endpoint(endpoint, None, seal) for endpoint in specification.endpoints),
    )
    return Model(document, created_at=now, updated_at=now, desired_since=now)


def changed_upstream(
    model: Model,
    specification: UpstreamSpecification,
    *,
    now: datetime,
    seal: Sealer,
    rekeyed: frozenset[int] = frozenset(),
) -> Model:
    """The next version. An endpoint whose address stays keeps its key, unless a new one is given or `rekeyed` names
    its position, because the request said null.

    Raises:
        DomainError: 422 `model_too_large`.
    """
    old = model.document
    keys = {endpoint.url: endpoint.api_key_sealed for endpoint in old.external}
    endpoints = tuple(
        _endpoint(endpoint, None if index in rekeyed else keys.get(endpoint.url), seal)
        for index, endpoint in enumerate(specification.endpoints)
    )
    kept: dict[str, Any] = {
        "id": old.id,
        "engine_type": old.engine_type,
        "aggregateversion": old.aggregateversion + 1,
        "restart_generation": old.restart_generation,
    }
    document = _document(specification, kept, endpoints)
    moved = document.desired_state is not old.desired_state
    return replace(model, document=document, updated_at=now, desired_since=now if moved else model.desired_since)


def changed_upstream_fields(old: ModelDocumentV1, new: ModelDocumentV1) -> tuple[str, ...]:
    """Names of the fields that differ."""
    before, after = describe_upstream(old), describe_upstream(new)
    changed = {field for field in after if before.get(field) != after[field]}
    if [endpoint.api_key_sealed for endpoint in old.external] != [endpoint.api_key_sealed for endpoint in new.external]:
        changed.add("endpoints")
    return tuple(sorted(changed))


def _endpoint(endpoint: EndpointSpecification, kept: str | None, seal: Sealer) -> ExternalEndpoint:
    sealed = seal(endpoint.api_key.get_secret_value()) if endpoint.api_key is not None else kept
    return ExternalEndpoint(url=endpoint.url, served_name=endpoint.served_name, api_key_sealed=sealed)


def _document(
    specification: UpstreamSpecification, kept: Mapping[str, Any], endpoints: tuple[ExternalEndpoint, ...]
) -> ModelDocumentV1:
    fields: dict[str, Any] = {field: getattr(specification, field) for field in _FIELDS}
    llamacpp = specification.engine_type is EngineType.LLAMACPP
    fields |= {
        "name": specification.name or specification.served_model_name,
        "desired_state": DesiredState.RUNNING if specification.enabled else DesiredState.STOPPED,
        "external": endpoints,
        "llamacpp": LlamaCppOptions() if llamacpp else None,
        "vllm": None if llamacpp else VllmOptions(),
    }
    document = ModelDocumentV1.model_validate(fields | dict(kept))
    size = len(document.model_dump_json().encode())
    if size > MAX_DOCUMENT_BYTES:
        message = f"The upstream's description takes {size} bytes; {MAX_DOCUMENT_BYTES} is the most."
        raise DomainError("model_too_large", message, status=422)
    return document


def name_from(offered: str) -> str | None:
    """A name for clients from the one an endpoint says, which may be a path; None when there is none in it."""
    last = offered.rstrip("/").rpartition("/")[2] if offered.startswith(("/", ".")) else offered
    for candidate in (last, slug(last)):
        try:
            specification = UpstreamSpecification(
                served_model_name=candidate, endpoints=(EndpointSpecification(url="http://localhost"),)
            )
        except ValidationError:
            continue
        return specification.served_model_name
    return None
