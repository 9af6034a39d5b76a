"""Keys, values and recurrent states: cells and bytes, as llama.cpp allocates them."""

from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from cortex_gguf_inspector.estimate.architecture import Facts, Layer

PADDING = 256
"""Cells of a cache come in multiples of this."""
STATE_ELEMENT = 4

BYTES_PER_ELEMENT = MappingProxyType(
    {
        "f32": Fraction(4),
        "f16": Fraction(2),
        "bf16": Fraction(2),
        "q8_0": Fraction(34, 32),
        "q4_0": Fraction(18, 32),
        "iq4_nl": Fraction(18, 32),
        "q4_1": Fraction(20, 32),
        "q5_0": Fraction(22, 32),
        "q5_1": Fraction(24, 32),
    }
)


def padded(tokens: int) -> int:
    """Rounded up to whole blocks of cells."""
    return -(-tokens // PADDING) * PADDING


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What decides the size of the caches, resolved from options and model."""

    context: int
    """Cells of all sequences together."""
    sequence: int
    """Cells one sequence may use: the length of one stream."""
    streams: int
    slots: int
    sliding: int
    """Cells of one stream of a sliding layer."""
    key_bytes: Fraction
    value_bytes: Fraction


@dataclass(frozen=True, slots=True)
class CacheWish:
    """The options that decide the caches. `context` 0 takes the model's own."""

    context: int
    slots: int
    unified: bool
    ubatch: int
    swa_full: bool
    key_type: str = "f16"
    value_type: str = "f16"


def cache_shape(facts: Facts, wish: CacheWish) -> CacheShape:
    """Resolve the cells."""
    cells = padded(wish.context or facts.context_length)
    streams = 1 if wish.unified else wish.slots
    sequence = cells if wish.unified else padded(cells // wish.slots)
    window = facts.window * (wish.slots if wish.unified else 1) + wish.ubatch
    sliding = sequence if wish.swa_full else padded(min(sequence, window))
    return CacheShape(
        context=sequence * streams,
        sequence=sequence,
        streams=streams,
        slots=wish.slots,
        sliding=sliding,
        key_bytes=BYTES_PER_ELEMENT[wish.key_type],
        value_bytes=BYTES_PER_ELEMENT[wish.value_type],
    )


def attention_bytes(facts: Facts, layer: Layer, shape: CacheShape) -> int:
    """Keys and values of one layer; exact."""
    if not layer.heads_kv:
        return 0
    cells = shape.streams * (shape.sliding if layer.sliding else shape.sequence)
    keys = layer.heads_kv * layer.key_length * shape.key_bytes
    values = 0 if facts.mla else layer.heads_kv * layer.value_length * shape.value_bytes
    return int(cells * (keys + values))


def state_bytes(facts: Facts, layer: Layer, shape: CacheShape) -> int:
    """Recurrent state of one layer; exact."""
    if not layer.recurrent or facts.state is None:
        return 0
    return shape.slots * STATE_ELEMENT * facts.state.state_elements


def layer_bytes(facts: Facts, shape: CacheShape) -> tuple[int, ...]:
    """Bytes of every layer's caches."""
    if facts.encoder:
        return (0,) * facts.block_count
    return tuple(
        attention_bytes(facts, layer, shape) + state_bytes(facts, layer, shape) if index < facts.cached_layers else 0
        for index, layer in enumerate(facts.layers)
    )


def bytes_per_token(facts: Facts, shape: CacheShape) -> int:
    """What one more token of context costs; layers that slide cost nothing more."""
    one = CacheShape(1, 1, 1, 1, 0, shape.key_bytes, shape.value_bytes)
    kept = () if facts.encoder else facts.layers[: facts.cached_layers]
    return sum(attention_bytes(facts, layer, one) for layer in kept if not layer.sliding)
