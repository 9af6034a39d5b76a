"""What is accepted but worth a word: warnings about a specification, and the one thing about fallbacks that is refused."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from cortex_contracts.enums import EngineType, Lifecycle, Task
from cortex_kit.errors import DomainError
from cortex_registry.domain.specification import AnySpecification


class FieldWarning(BaseModel):
    """Something that was accepted, and what became of it."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "example": {
                "field": "swap_space_gb",
                "code": "gone",
                "message": "swap_space_gb is ignored: vLLM has no swap space any more.",
            }
        },
    )

    field: str = Field(description="field of the request")
    code: str = Field(description="stable code")
    message: str


_SAMPLING = frozenset(
    [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "stream",
        "stream_options",
        "user",
        "reasoning_effort",
        "chat_template_kwargs",
        "best_of",
        "echo",
        "suffix",
        "metadata",
    ]
)
_POOLING = frozenset(
    ["encoding_format", "dimensions", "user", "truncate_prompt_tokens", "top_n", "return_documents", "priority"]
)
_OWN: Mapping[EngineType, frozenset[str]] = {
    EngineType.LLAMACPP: frozenset(
        [
            "repeat_penalty",
            "repeat_last_n",
            "typical_p",
            "typ_p",
            "xtc_probability",
            "xtc_threshold",
            "dynatemp_range",
            "dynatemp_exponent",
            "mirostat",
            "mirostat_tau",
            "mirostat_eta",
            "dry_multiplier",
            "dry_base",
            "dry_allowed_length",
            "dry_penalty_last_n",
            "dry_sequence_breakers",
            "top_n_sigma",
            "grammar",
            "grammar_lazy",
            "json_schema",
            "samplers",
            "ignore_eos",
            "n_predict",
            "n_keep",
            "n_probs",
            "min_keep",
            "cache_prompt",
            "id_slot",
            "t_max_predict_ms",
            "timings_per_token",
            "post_sampling_probs",
            "return_progress",
            "reasoning_format",
            "thinking_forced_open",
            "add_generation_prompt",
            "lora",
            "reasoning_budget",
        ]
    ),
    EngineType.VLLM: frozenset(
        [
            "repetition_penalty",
            "length_penalty",
            "min_tokens",
            "stop_token_ids",
            "include_stop_str_in_output",
            "ignore_eos",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "prompt_logprobs",
            "truncate_prompt_tokens",
            "add_special_tokens",
            "add_generation_prompt",
            "continue_final_message",
            "chat_template",
            "structured_outputs",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "bad_words",
            "allowed_token_ids",
            "use_beam_search",
            "mm_processor_kwargs",
            "priority",
            "include_reasoning",
            "return_tokens_as_token_ids",
            "cache_salt",
            "documents",
            "thinking_token_budget",
            "vllm_xargs",
        ]
    ),
}
_ROUTED = frozenset(("model", "messages", "prompt", "input", "query"))


def advise(specification: AnySpecification, known_names: Collection[str]) -> tuple[FieldWarning, ...]:
    """Warnings about a specification that is otherwise valid.

    Args:
        specification: after validation.
        known_names: served names and aliases of every model there is.
    """
    found: list[FieldWarning] = []
    if specification.idle_ttl_s is not None and specification.lifecycle is not Lifecycle.ON_DEMAND:
        message = (
            f"idle_ttl_s has no effect with lifecycle {specification.lifecycle}: only on_demand models go to sleep."
        )
        found.append(FieldWarning(field="idle_ttl_s", code="no_effect", message=message))
    own = {specification.served_name, *specification.aliases}
    found += [
        FieldWarning(field="fallbacks", code="unknown_model", message=f"There is no model {name} now.")
        for name in specification.fallbacks
        if name not in known_names and name not in own
    ]
    return (*found, *_about_defaults(specification))


def _about_defaults(specification: AnySpecification) -> list[FieldWarning]:
    engine = EngineType(specification.engine_type)
    known = _SAMPLING | _OWN[engine] if specification.task is Task.GENERATE else _POOLING
    found: list[FieldWarning] = []
    for name in specification.request_defaults:
        if name in _ROUTED:
            message = f"{name} comes with every request: this default is never used."
            found.append(FieldWarning(field=f"request_defaults.{name}", code="no_effect", message=message))
        elif name not in known:
            other = next((kind for kind, names in _OWN.items() if kind is not engine and name in names), None)
            whose = f"it is a parameter of {other}" if other is not None else f"{engine} may ignore it"
            message = f"{name} is not a known request parameter of {engine} for {specification.task}: {whose}."
            found.append(
                FieldWarning(field=f"request_defaults.{name}", code="unknown_request_default", message=message)
            )
    return found


def refuse_fallback_cycle(
    names: Collection[str], fallbacks: Sequence[str], others: Mapping[str, Sequence[str]]
) -> None:
    """Refuse fallbacks that lead back to the model itself.

    Args:
        names: every name of this model.
        fallbacks: its own.
        others: fallbacks of each other model, under every name of it.

    Raises:
        DomainError: 422 `fallback_cycle` with the way round.
    """
    waiting: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in reversed(fallbacks)]
    seen: set[str] = set()
    while waiting:
        name, way = waiting.pop()
        if name in names:
            message = f"The fallbacks lead back to this model: {' -> '.join(way)}."
            raise DomainError(
                "fallback_cycle",
                message,
                status=422,
                details={"errors": [{"field": "fallbacks", "code": "fallback_cycle", "message": message}]},
            )
        if name not in seen:
            seen.add(name)
            waiting += [(one, (*way, one)) for one in others.get(name, ()) if one not in seen]
