"""Estimates and recommendations for models on disk: reads, computes, words the answer. Blocks on the file system."""

from pathlib import Path

from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import (
    EstimateRequestV1,
    EstimateResultV1,
    ProposalV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.estimate.caches import bytes_per_token
from cortex_gguf_inspector.estimate.llamacpp import Estimate, Setup, estimate
from cortex_gguf_inspector.estimate.overrides import parse_overrides
from cortex_gguf_inspector.estimate.recommend import cache_ram, recommend, threads_of
from cortex_gguf_inspector.estimate.search import largest_context, proposals
from cortex_gguf_inspector.estimate.sources import Sources
from cortex_gguf_inspector.estimate.vllm import VllmFacts, estimate_vllm
from cortex_gguf_inspector.limits import Limits

MAX_SEARCHED_LAYERS = 256
"""A search makes some dozens of estimates; deeper models than any there is are estimated once."""


class Estimator:
    """Answers for the models below one root. Every method blocks and raises GgufError for what is refused."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self._sources = Sources(root, limits)

    def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        """Memory with the options of the request; the largest context and proposals when asked."""
        if request.engine_type is EngineType.VLLM:
            return _vllm_result(request, self._sources.hugging_face(request.path))
        options = request.llamacpp or LlamaCppOptions()
        file, facts = self._sources.gguf(request.path)
        setup = Setup(
            facts,
            options,
            request.devices,
            request.host,
            request.task,
            parse_overrides(request.extra_args),
            self._sources.companions(options),
            request.engine_build,
        )
        return _llamacpp_result(file, setup, search=request.search)

    def recommend(self, request: RecommendRequestV1) -> RecommendResultV1:
        """How to serve the model on the request's host."""
        if self._sources.is_hugging_face(request.path):
            return _recommend_vllm(request, self._sources.hugging_face(request.path))
        file, facts = self._sources.gguf(request.path)
        options = LlamaCppOptions(parallel_slots=request.parallel_slots)
        setup = cache_ram(Setup(facts, options, request.devices, request.host, request.task))
        found = recommend(setup, request.context_size)
        chosen = threads_of(found.settings, found.options)
        final = Setup(facts, chosen, request.devices, request.host, request.task)
        return RecommendResultV1(
            path=file,
            engine_type=EngineType.LLAMACPP,
            llamacpp=chosen,
            settings=found.settings,
            estimate=_llamacpp_result(file, final, search=False),
            warnings=found.warnings,
        )


def _llamacpp_result(file: str, setup: Setup, *, search: bool) -> EstimateResultV1:
    found = estimate(setup)
    search = search and setup.facts.block_count <= MAX_SEARCHED_LAYERS
    context = largest_context(setup) if search else None
    cache = found.resolved.cache
    return EstimateResultV1(
        path=file,
        engine_type=EngineType.LLAMACPP,
        architecture=setup.facts.architecture,
        known=found.unknown is None,
        reason=found.unknown or "",
        devices=found.devices,
        total=found.total,
        fits=_verdict(found),
        context_size=cache.context,
        context_per_slot=cache.sequence,
        kv_bytes_per_token=bytes_per_token(setup.facts, cache),
        largest_context=context,
        proposals=tuple(proposals(setup, found, context)) if search else (),
        warnings=found.warnings,
    )


def _verdict(found: Estimate) -> bool | None:
    """A lower bound can say that something does not fit, never that it does."""
    return found.fits if found.unknown is None or found.fits is False else None


def _vllm_result(request: EstimateRequestV1, facts: VllmFacts) -> EstimateResultV1:
    found = estimate_vllm(facts, request.vllm or VllmOptions(), request.devices)
    return EstimateResultV1(
        path=request.path,
        engine_type=EngineType.VLLM,
        architecture=facts.architecture,
        known=found.unknown is None,
        reason=found.unknown or "",
        devices=found.devices,
        total=sum(memory.total for memory in found.devices) or facts.weights,
        fits=found.fits,
        context_size=found.max_model_len or None,
        context_per_slot=found.max_model_len or None,
        kv_bytes_per_token=found.kv_bytes_per_token,
        largest_context=found.largest_context,
        max_concurrency=found.max_concurrency,
        warnings=found.warnings,
    )


def _recommend_vllm(request: RecommendRequestV1, facts: VllmFacts) -> RecommendResultV1:
    if not request.devices:
        message = "vLLM needs a GPU here, and none was given; a GGUF file of the model would run on the CPU"
        raise GgufError(GgufErrorCode.NO_GGUF_IN_FOLDER, message)
    settings = [ProposalV1(setting="engine_type", value="vllm", reason="the folder holds safetensors, not GGUF")]
    size, found = 1, None
    while size <= len(request.devices):
        options = VllmOptions(tp_size=size, max_model_len=request.context_size)
        found = estimate_vllm(facts, options, request.devices)
        if found.fits:
            break
        size *= 2
    size = min(size, len(request.devices))
    length = request.context_size
    if found is not None and not found.fits and found.largest_context:
        length = min(found.largest_context, length or found.largest_context)
        settings.append(ProposalV1(setting="max_model_len", value=length, reason="the longest request the cache holds"))
    reason = "the fewest GPUs that hold weights and one request of full length"
    settings.append(ProposalV1(setting="tp_size", value=size, reason=reason))
    options = VllmOptions(tp_size=size, max_model_len=length)
    asked = EstimateRequestV1(path=request.path, engine_type=EngineType.VLLM, vllm=options, devices=request.devices)
    return RecommendResultV1(
        path=request.path,
        engine_type=EngineType.VLLM,
        vllm=options,
        settings=tuple(settings),
        estimate=_vllm_result(asked, facts),
    )
