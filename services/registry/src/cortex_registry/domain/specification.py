"""What an administrator may say of a model: flat, typed per engine, closed against unknown fields."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType, Lifecycle, RoutingPolicy, Task
from cortex_kit.errors import DomainError
from cortex_registry.domain.text import is_id, require_storable, slug

_NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]*"
_REPO = r"[A-Za-z0-9][A-Za-z0-9._-]*"
ServedName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}(/{_NAME})*$", max_length=128)]
"""A name that clients ask for, e.g. `openai/gpt-oss-120b`."""

_IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:\d+)?(/[A-Za-z0-9][A-Za-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
_DAY_S = 86_400
_MULTILINE_FIELDS = frozenset({"chat_template"})


class CommonFields(BaseModel):
    """Fields of every model, whatever its engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)] = Field(
        description="what people call the model"
    )
    served_model_name: ServedName | None = Field(
        default=None, validate_default=True, description="what clients ask for; made from the name when left out"
    )
    aliases: tuple[ServedName, ...] = Field(default=(), max_length=32, description="further names clients may ask for")
    task: Task = Field(default=Task.GENERATE, description="what the model is for")
    repo_id: str | None = Field(
        default=None, max_length=256, pattern=rf"^{_REPO}(/{_REPO})?$", description="Hugging Face repository (vLLM)"
    )
    local_path: str | None = Field(
        default=None, max_length=1024, description="file or folder below the models folder; a GGUF file for llama.cpp"
    )
    engine_image: str | None = Field(
        default=None, max_length=512, pattern=_IMAGE, description="container image instead of the installation's own"
    )
    extra_args: tuple[str, ...] = Field(
        default=(), max_length=256, description="further arguments of the engine, a word each"
    )
    extra_env: dict[str, str] = Field(
        default_factory=dict, max_length=64, description="further environment variables of the engine"
    )
    hf_token: SecretStr | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        json_schema_extra={"writeOnly": True},
        description="Hugging Face token for gated repositories; kept sealed, never shown",
    )
    replicas: int = Field(default=1, ge=0, le=64, description="engines that serve the model")
    placement: Literal["auto"] | Annotated[tuple[Annotated[int, Field(ge=0, le=1023)], ...], Field(max_length=64)] = (
        Field(default="auto", description="GPUs by index, or auto")
    )
    lifecycle: Lifecycle = Field(
        default=Lifecycle.ALWAYS,
        description="always: kept running; on_demand: started by a request, stopped when idle; manual: as asked",
    )
    idle_ttl_s: int | None = Field(
        default=None, ge=1, le=30 * _DAY_S, description="idle time after which an on_demand model is stopped, seconds"
    )
    request_defaults: dict[str, JsonValue] = Field(
        default_factory=dict, description='parameters for requests that do not set them, e.g. {"temperature": 0.2}'
    )
    startup_timeout_s: int = Field(
        default=600, ge=1, le=_DAY_S, description="longest time until the engine answers, seconds"
    )
    stop_timeout_s: int = Field(
        default=30, ge=0, le=3600, description="time for requests to end before the engine is killed, seconds"
    )
    request_timeout_s: float = Field(
        default=300.0, gt=0, le=_DAY_S, description="longest silence before the first byte of an answer, seconds"
    )
    stream_timeout_s: float = Field(
        default=300.0, gt=0, le=_DAY_S, description="longest silence between two parts of an answer, seconds"
    )
    routing_policy: RoutingPolicy = Field(
        default=RoutingPolicy.LEAST_LOADED, description="how a request finds its replica"
    )
    fallbacks: tuple[ServedName, ...] = Field(
        default=(), max_length=16, description="models that answer while this one cannot, in order"
    )

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value

    @field_validator("repo_id")
    @classmethod
    def _no_tricks_in_repo_id(cls, value: str | None) -> str | None:
        if value is not None and (".." in value or "--" in value):
            raise ValueError("must not contain '..' or '--'")
        return value

    @field_validator("served_model_name", "aliases", "fallbacks")
    @classmethod
    def _names_are_no_ids(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for name in (value,) if isinstance(value, str) else value or ():
            if is_id(name):
                raise ValueError("must not look like an id")
        return value

    @property
    def served_name(self) -> str:
        """The name the engine serves the model under; raises nothing once validated."""
        return self.served_model_name or slug(self.name)

    @model_validator(mode="after")
    def _names_are_usable(self) -> Self:
        if not self.served_name:
            raise ValueError("served_model_name cannot be made from this name: give one")
        names = (self.served_name, *self.aliases)
        if len(set(names)) != len(names):
            raise ValueError("aliases must differ from each other and from served_model_name")
        return self

    @model_validator(mode="after")
    def _no_smuggled_flags(self) -> Self:
        for field, value in self:
            if not isinstance(value, str) or field in ("name", "local_path") or not value:
                continue
            controls = any(ord(character) < 32 for character in value) and field not in _MULTILINE_FIELDS
            if value.startswith("-") or controls:
                raise ValueError(f"{field} must not begin with a dash or hold control characters")
        return self


class LlamaCppSpecification(CommonFields, LlamaCppOptions):
    """A GGUF model served by llama-server."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "example": {
                "name": "gpt-oss 120b",
                "engine_type": "llamacpp",
                "served_model_name": "openai/gpt-oss-120b",
                "local_path": "gpt-oss-120b/gpt-oss-120b-00001-of-00003.gguf",
                "context_size": 32768,
                "parallel_slots": 4,
                "request_defaults": {"temperature": 0.7},
            }
        },
    )

    engine_type: Literal["llamacpp"]

    @model_validator(mode="after")
    def _source_and_options_fit(self) -> Self:
        if self.repo_id is not None or self.local_path is None:
            raise ValueError("llama.cpp serves a GGUF file: give local_path, not repo_id")
        if self.cache_type_v not in (None, "f32", "f16", "bf16") and not self.flash_attention:
            raise ValueError("a quantized cache_type_v needs flash_attention")
        if self.chat_template is not None and self.chat_template_file is not None:
            raise ValueError("give one of chat_template and chat_template_file")
        return self

    def options(self) -> LlamaCppOptions:
        """The engine's part."""
        return LlamaCppOptions.model_validate(_subset(self, LlamaCppOptions))


class VllmSpecification(CommonFields, VllmOptions):
    """A Transformers or safetensors model served by vLLM."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "example": {
                "name": "Qwen3 8B",
                "repo_id": "Qwen/Qwen3-8B",
                "tp_size": 2,
                "max_model_len": 32768,
                "aliases": ["qwen"],
            }
        },
    )

    engine_type: Literal["vllm"] = "vllm"

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        if (self.repo_id is None) == (self.local_path is None):
            raise ValueError("give exactly one of repo_id and local_path")
        if self.local_path is not None and self.local_path.lower().endswith(".gguf"):
            raise ValueError("vLLM does not serve GGUF files: choose the engine llamacpp")
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.chat_template is not None and self.chat_template_file is not None:
            raise ValueError("give one of chat_template and chat_template_file")
        if self.draft_model_path is not None and self.draft_repo_id is not None:
            raise ValueError("give one of draft_model_path and draft_repo_id")
        names = [module.name for module in self.lora_modules]
        if len(set(names)) != len(names):
            raise ValueError("lora_modules must differ in their names")
        for module in self.lora_modules:
            if (module.path is None) == (module.repo_id is None):
                raise ValueError("lora_modules each need exactly one of path and repo_id")
        return self

    def options(self) -> VllmOptions:
        """The engine's part."""
        return VllmOptions.model_validate(_subset(self, VllmOptions))


def _engine_of(value: object) -> str:
    if isinstance(value, Mapping):
        chosen: Any = value.get("engine_type", "vllm")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return chosen if isinstance(chosen, str) else "unknown"
    return str(getattr(value, "engine_type", "vllm"))


Specification = Annotated[
    Annotated[LlamaCppSpecification, Tag("llamacpp")] | Annotated[VllmSpecification, Tag("vllm")],
    Discriminator(_engine_of),
]
"""A model as the admin API takes it; `engine_type` defaults to vllm."""

AnySpecification = LlamaCppSpecification | VllmSpecification
_ADAPTER: TypeAdapter[AnySpecification] = TypeAdapter(Specification)


def parse_specification(fields: Mapping[str, JsonValue]) -> AnySpecification:
    """Validate a flat description.

    Raises:
        DomainError: 422 `invalid_request` with one entry per wrong field.
    """
    try:
        return _ADAPTER.validate_python(dict(fields))
    except ValidationError as error:
        raise invalid_request(describe_errors(error.errors(include_url=False))) from None


def invalid_request(errors: Sequence[Mapping[str, str]]) -> DomainError:
    """422 with the list of wrong fields."""
    fields = ", ".join(dict.fromkeys(error["field"] for error in errors if error["field"]))
    message = f"The request is not valid: {fields}." if fields else f"The request is not valid: {errors[0]['message']}"
    return DomainError("invalid_request", message, status=422, details={"errors": list(errors)})


def describe_errors(errors: Sequence[ErrorDetails]) -> list[dict[str, str]]:
    """pydantic's errors as {field, code, message}, without the input, which may be a secret."""
    return [_describe(error) for error in errors]


def _describe(error: ErrorDetails) -> dict[str, str]:
    place = [str(part) for part in error["loc"]]
    if place[:1] in (["body"], ["query"], ["path"]):
        place = place[1:]
    engine = place.pop(0) if place[:1] in (["llamacpp"], ["vllm"]) else None
    field = ".".join(place)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = _foreign_field(field, engine)
    elif error["type"] == "union_tag_invalid":
        field, message = "engine_type", "must be vllm or llamacpp"
    elif error["type"] == "value_error" and not field:
        field = _field_named_first(message)
    return {"field": field, "code": error["type"], "message": message}


def _foreign_field(field: str, engine: str | None) -> str:
    name = field.split(".", 1)[0]
    for owner, options in ((EngineType.VLLM, VllmOptions), (EngineType.LLAMACPP, LlamaCppOptions)):
        if name in options.model_fields and engine not in (None, owner.value):
            return f"{name} is an option of {owner.value}, not of {engine}"
    return "there is no such field"


def _field_named_first(message: str) -> str:
    known = CommonFields.model_fields | VllmOptions.model_fields | LlamaCppOptions.model_fields
    return next((word for word in re.findall(r"[a-z_]+", message) if word in known), "")


def _subset(specification: BaseModel, options: type[BaseModel]) -> dict[str, Any]:
    return {field: getattr(specification, field) for field in options.model_fields}
