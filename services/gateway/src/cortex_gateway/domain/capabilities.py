"""What an engine of a model can do, as far as the model's specification tells. None: not known, let the engine say."""

from dataclasses import dataclass

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import EngineType

ENGINE_NAMES = {EngineType.VLLM: "vLLM", EngineType.LLAMACPP: "llama.cpp"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts that decide what is passed on, changed or refused."""

    engine_type: EngineType
    slots: int | None = None
    """Most choices of one request (llama-server: its slots)."""
    context: int | None = None
    """Tokens that prompt and answer of one request may have together."""
    tools: bool | None = None
    """It can be given tools to call."""
    endless: bool = False
    """An answer without a limit does not end at the context's edge."""

    @property
    def engine(self) -> str:
        """The engine's name in messages."""
        return ENGINE_NAMES[self.engine_type]


def capabilities_of(model: ModelDocumentV1) -> Capabilities:
    """Read them off the specification; nothing is known of an engine that others run."""
    if model.external:
        return Capabilities(model.engine_type)
    if model.engine_type is EngineType.LLAMACPP:
        return _llamacpp(model)
    return _vllm(model)


def _llamacpp(model: ModelDocumentV1) -> Capabilities:
    options = model.llamacpp
    if options is None or model.extra_args:
        return Capabilities(EngineType.LLAMACPP)  # free arguments may say otherwise
    slots = options.parallel_slots
    context = options.context_size or None
    if context is not None and slots is not None and not options.kv_unified:
        context //= slots
    return Capabilities(
        EngineType.LLAMACPP,
        slots=slots,
        context=context,
        tools=False if options.jinja_enabled is False else None,
        endless=bool(options.context_shift),
    )


def _vllm(model: ModelDocumentV1) -> Capabilities:
    options = model.vllm
    if options is None:
        return Capabilities(EngineType.VLLM)
    free = any(argument.startswith("--enable-auto-tool-choice") for argument in model.extra_args)
    return Capabilities(
        EngineType.VLLM,
        context=options.max_model_len,
        tools=options.tool_call_parser is not None or free,
    )
