"""Fields of the first Cortex, so that its scripts go on working.

An old spelling becomes today's field; a field that today's engines, or Cortex, have no use for is accepted, named in a
warning, and never passed on. Null in an old field says nothing, as it did.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from pydantic import JsonValue

from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.specification import invalid_request

RENAMED: Mapping[str, str] = {
    "request_timeout_sec": "request_timeout_s",
    "stream_timeout_sec": "stream_timeout_s",
    "startup_timeout_sec": "startup_timeout_s",
    "debug_logging": "verbose_logging",
}
"""Old name -> today's, the value unchanged."""

IGNORED: Mapping[str, tuple[str, str]] = {
    "state": ("read_only", "it is observed; use start and stop"),
    "archived": ("read_only", "use archive and unarchive"),
    "port": ("managed", "Cortex chooses the engine's port"),
    "container_name": ("managed", "Cortex names its containers"),
    "created_at": ("read_only", "Cortex sets it"),
    "updated_at": ("read_only", "Cortex sets it"),
    "engine_version": ("read_only", "choose the engine with engine_image"),
    "engine_digest": ("read_only", "pin the engine with engine_image name@sha256:…"),
    "swap_space_gb": ("gone", "vLLM has no swap space any more; see kv_offloading_size"),
    "device": ("gone", "the engine's image decides between GPU and CPU; see engine_image"),
    "vllm_v1_enabled": ("gone", "there is only one vLLM core left"),
    "gguf_weight_format": ("gone", "vLLM does not load GGUF files; use the engine llamacpp"),
    "entrypoint_override": ("managed", "Cortex knows the entry point of the image"),
    "trace_mode": ("gone", "vLLM has no such mode; see verbose_logging"),
    "engine_request_timeout": ("gone", "vLLM has no such timeout; see request_timeout_s"),
    "disable_log_stats": ("managed", "Cortex needs the engine's metrics"),
    "defrag_thold": ("gone", "llama.cpp keeps its cache without gaps by itself"),
    "system_prompt": ("gone", "llama-server takes no system prompt; clients send a system message"),
}
"""Old name -> code and reason of the warning."""

_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
_TASKS: Mapping[str, str] = {"embedding": "embed", "embeddings": "embed", "generation": "generate"}


@dataclass(frozen=True, slots=True)
class Translation:
    """Fields in today's words, and what was changed or left out."""

    fields: dict[str, JsonValue]
    warnings: tuple[FieldWarning, ...] = ()


@dataclass(slots=True)
class _Work:
    engine: str
    given: Mapping[str, JsonValue]
    fields: dict[str, JsonValue]
    defaults: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    warnings: list[FieldWarning] = field(default_factory=list[FieldWarning])

    def warn(self, old: str, code: str, message: str) -> None:
        self.warnings.append(FieldWarning(field=old, code=code, message=message))

    def put(self, old: str, new: str, value: JsonValue) -> None:
        """Set today's field, unless the request holds it too."""
        if new in self.given and new != old:
            self.warn(old, "superseded", f"{old} is ignored: {new} is given too.")
            return
        self.fields[new] = value
        self.warn(old, "renamed", f"{old} is now {new}.")


def translate(
    fields: Mapping[str, JsonValue], *, engine: str | None = None, defaults: Mapping[str, JsonValue] | None = None
) -> Translation:
    """Old fields in today's words.

    Args:
        fields: a description or a patch as it came.
        engine: the model's engine where the request does not say.
        defaults: the model's present request defaults, which single old ones (`temperature`) are added to.

    Raises:
        DomainError: 422 `invalid_request`, naming an old field that cannot be read.
    """
    chosen = fields.get("engine_type", engine or "vllm")
    work = _Work(str(chosen), fields, dict(fields))
    _drop_nulls_of_the_other_engine(work)
    for old in [name for name in fields if name in RENAMED or name in IGNORED or name in _READERS]:
        value = work.fields.pop(old)
        if value is None:
            continue
        if old in IGNORED:
            code, reason = IGNORED[old]
            work.warn(old, code, f"{old} is ignored: {reason}.")
        elif old in RENAMED:
            work.put(old, RENAMED[old], value)
        else:
            _READERS[old](work, old, value)
    _replace_old_values(work)
    if work.defaults:
        _merge_defaults(work, defaults or {})
    return Translation(work.fields, tuple(work.warnings))


def _drop_nulls_of_the_other_engine(work: _Work) -> None:
    """Old scripts send every field of both engines, null where it does not apply."""
    own, other = (LlamaCppOptions, VllmOptions) if work.engine == "llamacpp" else (VllmOptions, LlamaCppOptions)
    for name in [name for name, value in work.fields.items() if value is None]:
        if name in other.model_fields and name not in own.model_fields:
            del work.fields[name]


def _replace_old_values(work: _Work) -> None:
    task = work.fields.get("task")
    if isinstance(task, str) and task in _TASKS:
        work.fields["task"] = _TASKS[task]
        work.warn("task", "renamed", f"The task {task} is now {_TASKS[task]}.")
    if work.fields.get("prefix_caching_hash_algo") == "sha256_cbor_64bit":
        work.fields["prefix_caching_hash_algo"] = "sha256_cbor"
        work.warn("prefix_caching_hash_algo", "renamed", "sha256_cbor_64bit is now sha256_cbor.")
    if work.fields.get("attention_backend") == "XFORMERS":
        del work.fields["attention_backend"]
        work.warn("attention_backend", "gone", "XFORMERS is ignored: vLLM has no such backend any more.")
    sizes = work.fields.get("cuda_graph_sizes")
    if isinstance(sizes, str):
        work.fields["cuda_graph_sizes"] = _numbers(sizes, "cuda_graph_sizes")


def _merge_defaults(work: _Work, present: Mapping[str, JsonValue]) -> None:
    base = work.fields.get("request_defaults", dict(present))
    if isinstance(base, dict):
        given = work.given.get("request_defaults")
        wins: dict[str, JsonValue] = given if isinstance(given, dict) else {}
        work.fields["request_defaults"] = {**base, **work.defaults, **wins}


def _read_sampling(work: _Work, old: str, value: JsonValue) -> None:
    new = "repeat_penalty" if old == "repetition_penalty" and work.engine == "llamacpp" else old
    work.defaults[new] = value
    work.warn(old, "renamed", f"{old} is now request_defaults.{new}.")


def _read_defaults(work: _Work, old: str, value: JsonValue) -> None:
    work.defaults |= _object(value, old)
    work.warn(old, "renamed", f"{old} is now request_defaults.")


def _read_gpus(work: _Work, old: str, value: JsonValue) -> None:
    chosen = _list(value, old)
    work.put(old, "placement", chosen or "auto")


def _read_arguments(work: _Work, old: str, value: JsonValue) -> None:
    words: list[JsonValue] = []
    for item in _list(value, old):
        words += [item] if isinstance(item, str) else _words(item, old)
    work.put(old, "extra_args", words)


def _words(item: JsonValue, old: str) -> list[JsonValue]:
    """One custom argument {flag, type, value} as the words of a command line."""
    entry = _object(item, old)
    flag, value = entry.get("flag"), entry.get("value")
    if not isinstance(flag, str) or not flag.strip("-"):
        raise _unreadable(old, "every argument needs a flag")
    flag = flag if flag.startswith("-") else f"--{flag}"
    if isinstance(value, str) and entry.get("type") in ("bool", "flag"):
        value = value.strip().lower() not in ("false", "0", "no", "off")
    if value is None or isinstance(value, bool):
        return [flag] if value is not False else []
    values = cast("Sequence[JsonValue]", value) if isinstance(value, list) else [value]
    return [flag, *(one if isinstance(one, str) else json.dumps(one) for one in values)]


def _read_environment(work: _Work, old: str, value: JsonValue) -> None:
    value = _parsed(value, old)
    if isinstance(value, dict):
        work.put(old, "extra_env", {name: _text(one) for name, one in value.items()})
        return
    environment: dict[str, JsonValue] = {}
    for item in _list(value, old):
        entry = _object(item, old)
        if not isinstance(entry.get("key"), str):
            raise _unreadable(old, "every variable needs a key")
        environment[str(entry["key"])] = _text(entry.get("value"))
    work.put(old, "extra_env", environment)


def _read_adapters(work: _Work, old: str, value: JsonValue) -> None:
    adapters: list[JsonValue] = [{"path": item} if isinstance(item, str) else item for item in _list(value, old)]
    work.put(old, "lora_adapters", adapters)


def _read_embeddings(work: _Work, old: str, value: JsonValue) -> None:
    if value is True:
        if work.given.get("task") in (None, "generate"):
            work.fields["task"] = "embed"
        work.warn(old, "renamed", f"{old} is now task: embed.")


def _read_log_requests(work: _Work, old: str, value: JsonValue) -> None:
    if not isinstance(value, bool):
        raise _unreadable(old, "is true or false")
    work.put(old, "enable_log_requests", not value)


def _read_mode(work: _Work, old: str, value: JsonValue) -> None:
    """Online models came from a repository, offline ones from a folder; an old form filled both in."""
    unused = {"offline": "repo_id", "online": "local_path"}.get(str(value))
    if unused is None:
        raise _unreadable(old, "is online or offline")
    used = "local_path" if unused == "repo_id" else "repo_id"
    for name in (unused, used):
        if work.fields.get(name) == "":
            del work.fields[name]
    if used in work.fields and work.fields.pop(unused, None) is not None:
        work.warn(unused, "superseded", f"{unused} is ignored: the model is {value}.")
    work.warn(old, "renamed", f"{old} is told by repo_id or local_path.")


_READERS: Mapping[str, Callable[[_Work, str, JsonValue], None]] = {
    **dict.fromkeys(_SAMPLING, _read_sampling),
    "request_defaults_json": _read_defaults,
    "custom_request_json": _read_defaults,
    "selected_gpus": _read_gpus,
    "engine_startup_args_json": _read_arguments,
    "engine_startup_args": _read_arguments,
    "engine_startup_env_json": _read_environment,
    "engine_startup_env": _read_environment,
    "lora_adapters_json": _read_adapters,
    "enable_embeddings": _read_embeddings,
    "disable_log_requests": _read_log_requests,
    "mode": _read_mode,
}

OLD_FIELDS = frozenset((*RENAMED, *IGNORED, *_READERS))
"""Every field that is only known here."""


def _parsed(value: JsonValue, old: str) -> JsonValue:
    """Old columns held JSON as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except (ValueError, RecursionError):
        raise _unreadable(old, "is not JSON") from None


def _list(value: JsonValue, old: str) -> list[JsonValue]:
    parsed = _parsed(value, old)
    if not isinstance(parsed, list):
        raise _unreadable(old, "is not a list")
    return parsed


def _object(value: JsonValue, old: str) -> dict[str, JsonValue]:
    parsed = _parsed(value, old)
    if parsed == []:
        return {}
    if not isinstance(parsed, dict):
        raise _unreadable(old, "is not an object")
    return parsed


def _numbers(text: str, old: str) -> list[JsonValue]:
    try:
        return [int(part) for part in text.strip("[] ").replace(",", " ").split()]
    except ValueError:
        raise _unreadable(old, "is not a list of numbers") from None


def _text(value: JsonValue) -> JsonValue:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _unreadable(old: str, what: str) -> Exception:
    return invalid_request([{"field": old, "code": "unreadable", "message": f"{old} {what}."}])
