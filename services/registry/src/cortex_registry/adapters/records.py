"""Rows into domain objects and back."""

import json
from typing import Any, Protocol

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1
from cortex_contracts.enums import EngineType
from cortex_contracts.events import UsageRecordedV1
from cortex_registry.domain.keys import ApiKey
from cortex_registry.domain.model import Model


class Row(Protocol):
    """A row by column name."""

    def __getitem__(self, key: str, /) -> Any: ...


LLAMACPP_COLUMNS = (
    "ngl",
    "tensor_split",
    "batch_size",
    "threads",
    "context_size",
    "rope_freq_base",
    "rope_freq_scale",
    "flash_attention",
    "mlock",
    "no_mmap",
    "numa_policy",
    "split_mode",
)
VLLM_COLUMNS = (
    "dtype",
    "tp_size",
    "pipeline_parallel_size",
    "gpu_memory_utilization",
    "max_model_len",
    "kv_cache_dtype",
    "max_num_batched_tokens",
    "max_num_seqs",
    "quantization",
    "block_size",
    "cpu_offload_gb",
    "enforce_eager",
    "trust_remote_code",
    "enable_prefix_caching",
    "prefix_caching_hash_algo",
    "enable_chunked_prefill",
    "tokenizer",
    "hf_config_path",
    "attention_backend",
)
_SHARED = tuple(
    field for field in ModelDocumentV1.model_fields if field not in ("aggregateversion", "llamacpp", "vllm", "id")
)
_JSON = ("extra_env", "placement", "request_defaults", "external")


def columns_of(engine: EngineType) -> tuple[str, ...]:
    """The engine's own columns; its other options live in `engine_options`."""
    return LLAMACPP_COLUMNS if engine is EngineType.LLAMACPP else VLLM_COLUMNS


def model_to_json(model: Model) -> str:
    """Common columns of a row, for jsonb_populate_record."""
    fields: dict[str, Any] = model.document.model_dump(mode="json", include=set(_SHARED))
    return json.dumps(
        fields
        | {
            "id": model.id,
            "version": model.version,
            "created_at": model.created_at.isoformat(),
            "updated_at": model.updated_at.isoformat(),
            "desired_since": model.desired_since.isoformat(),
            "archived_at": model.archived_at.isoformat() if model.archived_at is not None else None,
        }
    )


def options_to_json(model: Model) -> str:
    """The engine's columns of a row, and `engine_options`."""
    document = model.document
    options = document.llamacpp if document.engine_type is EngineType.LLAMACPP else document.vllm
    values: dict[str, Any] = options.model_dump(mode="json") if options is not None else {}
    columns = columns_of(document.engine_type)
    fields = {column: values[column] for column in columns if column in values}
    rest = {name: value for name, value in values.items() if name not in columns and value is not None}
    return json.dumps(fields | {"engine_options": rest})


def model_from_row(row: Row) -> Model:
    """A row of `models`; the other engine's columns are ignored."""
    engine = EngineType(row["engine_type"])
    options: dict[str, Any] = json.loads(row["engine_options"])
    options |= {column: row[column] for column in columns_of(engine) if row[column] is not None}
    fields: dict[str, Any] = {field: json.loads(row[field]) if field in _JSON else row[field] for field in _SHARED}
    fields |= {"id": str(row["id"]), "aggregateversion": row["version"], engine.value: options}
    return Model(
        document=ModelDocumentV1.model_validate(fields),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        desired_since=row["desired_since"],
        archived_at=row["archived_at"],
    )


def key_to_json(key: ApiKey) -> str:
    """A row of `api_keys`, for jsonb_populate_record."""
    fields: dict[str, Any] = key.document.model_dump(mode="json", exclude={"aggregateversion"})
    return json.dumps(
        fields
        | {
            "version": key.document.aggregateversion,
            "prefix": key.prefix,
            "created_at": key.created_at.isoformat(),
            "updated_at": (key.updated_at or key.created_at).isoformat(),
            "disabled_at": key.disabled_at.isoformat() if key.disabled_at is not None else None,
            "rotated_from": key.rotated_from,
        }
    )


def key_from_row(row: Row) -> ApiKey:
    """A row of `api_keys`."""
    fields: dict[str, Any] = {
        field: row[field] for field in KeyDocumentV1.model_fields if field not in ("aggregateversion", "id")
    }
    document = KeyDocumentV1.model_validate(fields | {"id": str(row["id"]), "aggregateversion": row["version"]})
    return ApiKey(
        document,
        row["prefix"],
        row["created_at"],
        row["revoked_at"],
        updated_at=row["updated_at"],
        disabled_at=row["disabled_at"],
        last_used_at=row["last_used_at"],
        rotated_from=str(row["rotated_from"]) if row["rotated_from"] is not None else None,
    )


def usage_from_row(row: Row) -> UsageRecordedV1:
    """A row of `usage`."""
    return UsageRecordedV1.model_validate({field: row[field] for field in UsageRecordedV1.model_fields})
