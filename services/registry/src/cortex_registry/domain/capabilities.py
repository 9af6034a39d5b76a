"""What models may be made of here: every field per engine, read off the types that validate them."""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_jsonable_python

from cortex_contracts.enums import EngineType
from cortex_registry.domain.specification import CommonFields, LlamaCppSpecification, VllmSpecification

Group = Literal["basic", "performance", "advanced"]

_BASIC = frozenset(
    (
        "name",
        "served_model_name",
        "aliases",
        "task",
        "repo_id",
        "local_path",
        "hf_token",
        "replicas",
        "placement",
        "lifecycle",
        "idle_ttl_s",
        "context_size",
        "parallel_slots",
        "ngl",
        "mmproj_path",
        "tp_size",
        "max_model_len",
        "quantization",
        "gpu_memory_utilization",
        "tool_call_parser",
        "reasoning_parser",
        "request_defaults",
    )
)
_PERFORMANCE = frozenset(
    (
        "routing_policy",
        "batch_size",
        "ubatch_size",
        "threads",
        "threads_batch",
        "tensor_split",
        "split_mode",
        "main_gpu",
        "flash_attention",
        "cache_type_k",
        "cache_type_v",
        "kv_unified",
        "kv_unified_per_slot",
        "kv_offload",
        "cache_ram_mib",
        "cache_reuse",
        "cont_batching",
        "mlock",
        "no_mmap",
        "load_mode",
        "numa_policy",
        "n_cpu_moe",
        "cpu_moe",
        "n_cpu_ffn",
        "fit",
        "fit_target_mib",
        "draft_model_path",
        "draft_repo_id",
        "draft_n",
        "draft_n_min",
        "draft_p_min",
        "draft_ngl",
        "spec_type",
        "speculative_method",
        "dtype",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "kv_offloading_size",
        "max_num_batched_tokens",
        "max_num_seqs",
        "block_size",
        "cpu_offload_gb",
        "enforce_eager",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "attention_backend",
        "cuda_graph_sizes",
        "max_cudagraph_capture_size",
        "optimization_level",
        "performance_mode",
        "async_scheduling",
        "scheduling_policy",
    )
)
_UNITS: Mapping[str, str] = {
    "_timeout_s": "s",
    "_ttl_s": "s",
    "_mib": "MiB",
    "_gb": "GiB",
    "_bytes": "bytes",
    "kv_offloading_size": "GiB",
    "context_size": "tokens",
    "max_model_len": "tokens",
    "_batched_tokens": "tokens",
    "_min_tokens": "tokens",
    "_max_tokens": "tokens",
    "_per_slot": "tokens",
    "_orig_ctx": "tokens",
    "_budget": "tokens",
    "cache_reuse": "tokens",
    "batch_size": "tokens",
    "block_size": "tokens",
}


class FieldInfo(BaseModel):
    """One field of a model, enough to build a form from."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: Literal["string", "integer", "number", "boolean", "array", "object", "any"]
    description: str
    group: Group
    scope: Literal["common", "engine"]
    required: bool
    nullable: bool
    """Null, the default of most options, leaves the choice to the engine."""
    default: JsonValue = None
    choices: tuple[JsonValue, ...] = ()
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    """Of a text or list."""
    pattern: str | None = None
    unit: str | None = None
    write_only: bool = False
    items: dict[str, JsonValue] | None = Field(default=None, description="JSON Schema of a list's elements")


@cache
def fields_of(engine: EngineType) -> tuple[FieldInfo, ...]:
    """Every field of a model of this engine, common ones first."""
    kind = LlamaCppSpecification if engine is EngineType.LLAMACPP else VllmSpecification
    schema: dict[str, Any] = kind.model_json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    names = [*CommonFields.model_fields, *(name for name in kind.model_fields if name not in CommonFields.model_fields)]
    return tuple(_field(kind, name, schema["properties"][name], definitions) for name in names if name != "engine_type")


def _field(kind: type[BaseModel], name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> FieldInfo:
    info = kind.model_fields[name]
    variants = [_resolved(variant, definitions) for variant in schema.get("anyOf", [schema])]
    nullable = any(variant.get("type") == "null" for variant in variants)
    shapes = [variant for variant in variants if variant.get("type") != "null"]
    shape = shapes[0] if len(shapes) == 1 else _mixed(shapes)
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    return FieldInfo(
        name=name,
        type=shape.get("type", "any"),
        description=info.description or "",
        group="basic" if name in _BASIC else "performance" if name in _PERFORMANCE else "advanced",
        scope="common" if name in CommonFields.model_fields else "engine",
        required=info.is_required(),
        nullable=nullable,
        default=to_jsonable_python(default.value if isinstance(default, Enum) else default),
        choices=tuple(shape.get("enum", (shape["const"],) if "const" in shape else ())),
        minimum=shape.get("minimum"),
        exclusive_minimum=shape.get("exclusiveMinimum"),
        maximum=shape.get("maximum"),
        max_length=shape.get("maxLength", shape.get("maxItems")),
        pattern=shape.get("pattern"),
        unit=next((unit for end, unit in _UNITS.items() if name.endswith(end)), None),
        write_only=schema.get("writeOnly", False),
        items=_inlined(shape.get("items"), definitions),
    )


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference: str | None = schema.get("$ref")
    if reference is None:
        return schema
    return {**definitions[reference.rsplit("/", 1)[-1]], **{key: schema[key] for key in schema if key != "$ref"}}


def _mixed(shapes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """`placement`: a word or a list."""
    merged: dict[str, Any] = {}
    for shape in shapes:
        merged |= shape
    return {**merged, "type": "any"}


def _inlined(schema: Mapping[str, Any] | None, definitions: Mapping[str, Any]) -> dict[str, JsonValue] | None:
    return cast("dict[str, JsonValue]", dict(_resolved(schema, definitions))) if schema is not None else None
