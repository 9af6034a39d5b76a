"""How to serve a GGUF model on a host: each setting with the reason for it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import ProposalV1
from cortex_gguf_inspector.estimate.llamacpp import MIB, Setup, estimate
from cortex_gguf_inspector.estimate.search import best_ngl, fits, largest_context, propose_split, with_options

COMFORTABLE_CONTEXT = 8_192
"""Less context than this is given up only after keys, values and layers have been."""
DEFAULT_WISH = 32_768
PROMPT_BATCH = 2_048


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Options and one reason per setting; `fits` None when the memory of the host is not known."""

    options: LlamaCppOptions
    settings: tuple[ProposalV1, ...]
    fits: bool | None
    warnings: tuple[str, ...]


def recommend(setup: Setup, wanted: int | None) -> Recommendation:
    """Recommend for the setup's devices and host; `wanted` is the context per slot, None the model's own."""
    slots = setup.options.parallel_slots or 1
    trained = setup.facts.context_length or DEFAULT_WISH
    wish = min(wanted or DEFAULT_WISH, trained)
    start = with_options(
        setup, context_size=wish * slots, parallel_slots=slots, batch_size=PROMPT_BATCH, ubatch_size=512
    )
    found = _first_fitting(start)
    reasons = _Reasons()
    reasons.add("engine_type", "llamacpp", "the model is a GGUF file, which llama.cpp serves and vLLM does not")
    if found is None:
        found = with_options(start, ngl=0, context_size=min(wish, COMFORTABLE_CONTEXT) * slots)
        verdict = estimate(found).fits
        warnings = [estimate(found).unknown or "nothing fits: the memory that is free is too small for this model"]
        if verdict is None and estimate(found).unknown is None:
            warnings = ["the memory of the host is not known: give it, or the largest values are guesses"]
    else:
        verdict, warnings = True, []
    _explain(reasons, found, wish * slots, trained)
    warnings += estimate(found).warnings
    return Recommendation(found.options, tuple(reasons.found), verdict, tuple(warnings))


class _Reasons:
    def __init__(self) -> None:
        self.found: list[ProposalV1] = []

    def add(self, setting: str, value: str | int, reason: str) -> None:
        """One setting and why."""
        self.found.append(ProposalV1(setting=setting, value=value, reason=reason))


def _first_fitting(setup: Setup) -> Setup | None:
    """The wishes given up in this order: precision of the cache, context down to a comfortable one, layers, context."""
    slots = setup.options.parallel_slots or 1
    small = min(setup.options.context_size, COMFORTABLE_CONTEXT * slots)
    everything = setup.facts.block_count + 1 if setup.devices else 0
    whole = with_options(setup, ngl=everything)
    packed = _packed(whole)
    for candidate in (whole, *packed):
        if (placed := _placed(candidate)) is not None:
            return placed
    for candidate in (whole, *packed):
        context = largest_context(candidate) or 0
        if context >= small:
            return with_options(candidate, context_size=min(context, setup.options.context_size))
    for candidate in (whole, *packed):
        lower = with_options(candidate, context_size=small)
        ngl = best_ngl(lower)
        if ngl is not None:
            return with_options(lower, ngl=ngl)
    last = (packed or [whole])[-1]
    for candidate in (last, with_options(last, ngl=0)):
        context = largest_context(candidate)
        if context:
            return with_options(candidate, context_size=context)
    return None


def _packed(setup: Setup) -> list[Setup]:
    """The same with a cache of half the size, where that needs nothing else."""
    if not setup.options.flash_attention or setup.facts.encoder:
        return []
    return [with_options(setup, cache_type_k="q8_0", cache_type_v="q8_0")]


def _placed(setup: Setup) -> Setup | None:
    if fits(estimate(setup)):
        return setup
    split = propose_split(setup)
    return None if split is None else with_options(setup, tensor_split=split)


def _explain(reasons: _Reasons, setup: Setup, wish: int, trained: int) -> None:
    options, layers = setup.options, setup.facts.block_count + 1
    ngl = options.ngl or 0
    if not setup.devices:
        reasons.add("ngl", 0, "there is no GPU: all layers stay on the CPU")
    elif ngl >= layers:
        reasons.add("ngl", ngl, "all layers and the output fit on the GPUs")
    else:
        reasons.add(
            "ngl", ngl, f"{ngl} of {layers} layers fit on the GPUs beside the cache; the others stay on the CPU"
        )
    if options.tensor_split is not None:
        reasons.add(
            "tensor_split", options.tensor_split, "layers per GPU; by free memory alone one of them would overflow"
        )
    if options.context_size >= wish:
        reason = "what was asked for fits" if wish < trained else "the whole context the model was trained for fits"
    else:
        reason = f"the memory is too small for {wish} tokens"
    reasons.add("context_size", options.context_size, reason)
    if options.cache_type_k is not None:
        reasons.add("cache_type_k", options.cache_type_k, "halves the cache at hardly any loss; f16 would not fit")
        reasons.add("cache_type_v", options.cache_type_v or "f16", "as for the keys")
    else:
        reasons.add("cache_type_k", "f16", "the cache fits in full precision")
    reasons.add(
        "batch_size", options.batch_size, "long prompts go through in fewer steps; memory depends on ubatch_size"
    )
    reasons.add("flash_attention", "on", "keeps the scores out of memory; a quantized value cache needs it")
    _explain_threads(reasons, setup)


def _explain_threads(reasons: _Reasons, setup: Setup) -> None:
    count = setup.host.cpu_count
    if count is None:
        return
    on_gpu = bool(setup.devices) and (setup.options.ngl or 0) > setup.facts.block_count
    threads = 1 if on_gpu and count == 1 else min(4, count) if on_gpu else max(1, count // 2 if count > 4 else count)
    reason = (
        "the GPUs do the work" if on_gpu else "about one per core that is no hyper-thread: more would wait for memory"
    )
    reasons.add("threads", threads, reason)


def threads_of(settings: Sequence[ProposalV1], options: LlamaCppOptions) -> LlamaCppOptions:
    """The options with the recommended threads."""
    value = next((item.value for item in settings if item.setting == "threads"), None)
    return options.model_copy(update={"threads": value}) if isinstance(value, int) else options


def cache_ram(setup: Setup) -> Setup:
    """The prompt cache a host with little memory should have: an eighth of what is free, at most 1 GiB."""
    free = setup.host.memory_free
    if free is None or setup.options.cache_ram_mib is not None:
        return setup
    return replace(setup, options=setup.options.model_copy(update={"cache_ram_mib": min(1024, free // 8 // MIB)}))
