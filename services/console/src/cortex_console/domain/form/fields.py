"""The fields of a model as a form shows them. Types, bounds and help are the registry's; names, order and kinds are here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from cortex_console.domain.shapes import Row, number, text

LEFT_TO_ENGINE = "Engine decides"


class Widget(StrEnum):
    """How a value is typed."""

    TEXT = "text"
    LONG = "long"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"
    NAMES = "names"
    WORDS = "words"
    PAIRS = "pairs"
    JSON = "json"
    SECRET = "secret"
    PLACEMENT = "placement"


@dataclass(frozen=True, slots=True)
class FormField:
    """One field. `choices` are (value, word); the value None leaves it to the engine."""

    name: str
    label: str
    help: str
    widget: Widget
    group: str
    unit: str = ""
    default: Any = None
    required: bool = False
    nullable: bool = False
    whole: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive: bool = False
    """The minimum itself is not allowed."""
    choices: tuple[tuple[Any, str], ...] = ()
    pattern: str = ""
    array: bool = False
    """Of JSON: a list is wanted, else an object."""

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one field of `GET /admin/capabilities`."""
        name = text(answer.get("name"))
        exclusive = number(answer.get("exclusive_minimum"))
        least = number(answer.get("minimum"))
        return cls(
            name=name,
            label=label_of(name),
            help=_HELP.get(name) or _sentence(text(answer.get("description"))),
            widget=_widget(answer),
            group=text(answer.get("group"), "advanced"),
            unit=text(answer.get("unit")),
            default=answer.get("default"),
            required=bool(answer.get("required")),
            nullable=bool(answer.get("nullable")),
            whole=answer.get("type") == "integer",
            minimum=exclusive if exclusive is not None else least,
            maximum=number(answer.get("maximum")),
            exclusive=exclusive is not None,
            choices=_choices(answer),
            pattern=text(answer.get("pattern")),
            array=answer.get("type") == "array",
        )

    @property
    def empty_means(self) -> str:
        """What an empty input stands for, shown in it."""
        if self.default not in (None, "", [], {}):
            return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        if self.name.startswith("request_defaults."):
            return "as the engine has it"
        return _EMPTY.get(self.name, "auto" if self.nullable and self.widget is Widget.NUMBER else "")


def label_of(name: str) -> str:
    """What people call a field."""
    if name in _LABELS:
        return _LABELS[name]
    if "." in name:
        name = name.rpartition(".")[2]
    words = [_WORDS.get(word, word) for word in name.split("_")]
    said = " ".join(words)
    return said[:1].upper() + said[1:]


def _sentence(said: str) -> str:
    return (
        said[:1].upper() + said[1:] + "."
        if said and not said.endswith((".", "}", "…"))
        else said[:1].upper() + said[1:]
    )


def _widget(answer: Row) -> Widget:
    name, kind = text(answer.get("name")), answer.get("type")
    if name in _SPECIAL:
        return _SPECIAL[name]
    if answer.get("choices"):
        return Widget.CHOICE
    match kind:
        case "boolean":
            return Widget.CHOICE if answer.get("nullable") else Widget.SWITCH
        case "integer" | "number":
            return Widget.NUMBER
        case "array" | "object":
            return Widget.JSON
        case _:
            return Widget.TEXT


def _choices(answer: Row) -> tuple[tuple[Any, str], ...]:
    given: Sequence[Any] = answer.get("choices") or ()
    if not given and answer.get("type") == "boolean":
        given = (True, False)
    words = {True: "On", False: "Off"} if answer.get("type") == "boolean" else _CHOICE_WORDS
    shown = [(value, words.get(value, str(value))) for value in given]
    return ((None, LEFT_TO_ENGINE), *shown) if answer.get("nullable") and shown else tuple(shown)


_SPECIAL: Mapping[str, Widget] = {
    "aliases": Widget.NAMES,
    "fallbacks": Widget.NAMES,
    "extra_args": Widget.WORDS,
    "extra_env": Widget.PAIRS,
    "hf_token": Widget.SECRET,
    "placement": Widget.PLACEMENT,
    "chat_template": Widget.LONG,
}
_HELP: Mapping[str, str] = {
    "name": "What people call it.",
    "served_model_name": "What clients ask for.",
    "ngl": "0 keeps all on the CPU; empty lets the engine fit as many as there is memory for.",
    "lifecycle": "Whether it runs all the time, wakes up for requests, or only does what it is told.",
    "idle_ttl_s": "On demand: how long without requests until it sleeps.",
    "placement": "Which ones, by number: 0, 1. Empty lets Cortex choose.",
    "quantization": "How the weights are packed: awq, gptq, fp8, compressed-tensors, mxfp4, …; empty reads it off the model.",
    "request_defaults": "Any other parameters of requests, as JSON.",
}
_EMPTY: Mapping[str, str] = {
    "served_model_name": "made from the name",
    "idle_ttl_s": "never",
    "mmproj_path": "none",
    "draft_model_path": "none",
    "quantization": "as the model has it",
}
_CHOICE_WORDS: Mapping[Any, str] = {
    "generate": "Chat and completions",
    "embed": "Embeddings",
    "rerank": "Rerank",
    "always": "Always: kept running",
    "on_demand": "On demand: sleeps when idle",
    "manual": "Manual: as asked",
    "least_loaded": "Least loaded replica",
    "prefix_affinity": "Same beginning, same replica",
    "round_robin": "In turn",
}
_WORDS: Mapping[str, str] = {
    "kv": "KV",
    "gpu": "GPU",
    "cpu": "CPU",
    "moe": "MoE",
    "ffn": "FFN",
    "swa": "SWA",
    "ctx": "context",
    "rope": "RoPE",
    "yarn": "YaRN",
    "lora": "LoRA",
    "loras": "LoRAs",
    "hf": "Hugging Face",
    "http": "HTTP",
    "ngl": "GPU layers",
    "n": "tokens",
    "p": "probability",
    "mm": "media",
    "cuda": "CUDA",
    "cudagraph": "CUDA graph",
    "numa": "NUMA",
    "len": "length",
    "seqs": "sequences",
    "spec": "speculative",
    "orig": "original",
    "attn": "attention",
    "embd": "embedding",
    "max": "most",
    "min": "fewest",
    "s": "",
    "gb": "",
    "mib": "",
    "bytes": "",
}
_LABELS: Mapping[str, str] = {
    "name": "Name",
    "served_model_name": "Served name",
    "task": "Task",
    "ngl": "GPU layers",
    "context_size": "Context size",
    "parallel_slots": "Parallel slots",
    "mmproj_path": "Projector file",
    "tp_size": "GPUs per layer (tensor parallel)",
    "max_model_len": "Context length",
    "gpu_memory_utilization": "Share of GPU memory",
    "hf_token": "Hugging Face token",
    "repo_id": "Hugging Face repository",
    "local_path": "File or folder",
    "placement": "GPUs",
    "idle_ttl_s": "Sleep after",
    "extra_args": "Further arguments",
    "extra_env": "Environment",
    "mlock": "Lock in memory",
    "no_mmap": "No memory mapping",
    "numa_policy": "NUMA policy",
    "n_cpu_moe": "Layers with experts on the CPU",
    "cpu_moe": "All experts on the CPU",
    "n_cpu_ffn": "Layers with FFN on the CPU",
    "fit": "Fit to memory",
    "fit_target_mib": "Memory left free by fitting",
    "max_num_seqs": "Requests at once",
    "max_num_batched_tokens": "Batch size",
    "cache_type_k": "K cache type",
    "cache_type_v": "V cache type",
    "cache_ram_mib": "Prompt cache in RAM",
    "swa_full": "Full sliding-window cache",
    "startup_timeout_s": "Time to start",
    "stop_timeout_s": "Time to stop",
    "request_timeout_s": "Time to first byte",
    "stream_timeout_s": "Time between parts",
    "server_timeout_s": "Engine's own timeout",
    "ubatch_size": "Physical batch size",
    "jinja_enabled": "Jinja templates",
    "engine_image": "Container image",
    "request_defaults": "Further request defaults",
    "request_defaults.max_tokens": "Most tokens",
    "request_defaults.temperature": "Temperature",
    "request_defaults.top_p": "Top p",
    "request_defaults.top_k": "Top k",
    "request_defaults.min_p": "Min p",
    "mmproj_offload": "Projector on the GPU",
    "lora_init_without_apply": "LoRA loaded but off",
    "image_min_tokens": "Fewest tokens of an image",
    "image_max_tokens": "Most tokens of an image",
    "embd_normalize": "Norm of embeddings",
    "skip_warmup": "No warm-up",
    "verbose_logging": "Verbose log",
    "chat_template_kwargs": "Chat template arguments",
    "mm_processor_kwargs": "Media processor arguments",
    "draft_model_path": "Draft model",
    "draft_repo_id": "Draft repository",
    "draft_n": "Tokens drafted at once",
    "draft_n_min": "Fewest tokens of a draft",
    "draft_p_min": "Least probability of a draft",
    "draft_ngl": "GPU layers of the draft",
    "draft_cache_type_k": "K cache type of the draft",
    "draft_cache_type_v": "V cache type of the draft",
    "spec_type": "Kind of drafting",
    "block_size": "KV cache block",
    "dtype": "Data type",
    "load_mode": "How the file is read",
    "kv_offload": "KV cache on the GPU",
    "op_offload": "Compute host weights on the GPU",
    "cont_batching": "Continuous batching",
}
