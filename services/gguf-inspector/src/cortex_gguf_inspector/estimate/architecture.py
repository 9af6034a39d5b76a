"""What the headers of a model say about its memory, as plain numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cortex_gguf_inspector.estimate import families
from cortex_gguf_inspector.header import ArrayValue, Header, TensorInfo

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_MAX_LAYERS = 1_024
_MAX_EXPERTS_USED = 512
_MAX_HEADS = 65_536
"""Bounds of what is computed: the file is hostile input."""


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Sizes of the state of a recurrent (Mamba-like) layer; f32, whatever the context."""

    d_conv: int
    d_inner: int
    d_state: int
    n_group: int
    dt_rank: int

    @property
    def state_elements(self) -> int:
        """Elements of one layer and one sequence."""
        return self.conv_elements + self.d_state * self.d_inner

    @property
    def conv_elements(self) -> int:
        """The convolution's part of the state."""
        return max(self.d_conv - 1, 0) * (self.d_inner + 2 * self.n_group * self.d_state)


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: one compressed key per token, no value."""

    key_length: int
    value_length: int
    kv_lora_rank: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `heads_kv` 0 means it keeps no keys and values."""

    heads: int
    heads_kv: int
    key_length: int
    value_length: int
    sliding: bool
    recurrent: bool
    tensors: Mapping[str, TensorInfo]

    @property
    def weights(self) -> int:
        """Bytes of the block's tensors."""
        return sum(tensor.size for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class Facts:
    """A model as the estimator sees it. `unknown` is why its memory cannot be computed, None when it can."""

    architecture: str
    layers: tuple[Layer, ...]
    cached_layers: int
    """The first so many layers keep keys and values (later ones predict ahead or share)."""
    context_length: int
    n_embd: int
    n_vocab: int
    window: int
    """Tokens a sliding layer sees; 0 for none."""
    experts_used: int
    rope_dims: int
    mla: Mla | None
    state: Recurrent | None
    encoder: bool
    input_tensors: Mapping[str, TensorInfo]
    output_tensors: Mapping[str, TensorInfo]
    final_softcap: bool
    attention_softcap: bool
    unknown: str | None
    approximate: str | None
    """Why the compute buffer is a rule of thumb, None when the graph is known."""

    @property
    def block_count(self) -> int:
        """Number of blocks, those that predict ahead included."""
        return len(self.layers)

    @property
    def tied(self) -> bool:
        """The output matrix is the token embedding: it exists twice when it lies on another device."""
        return "output.weight" not in self.output_tensors and "token_embd.weight" in self.input_tensors

    @property
    def weights(self) -> int:
        """Bytes of all tensors of the file."""
        ends = (*self.input_tensors.values(), *self.output_tensors.values())
        return sum(layer.weights for layer in self.layers) + sum(tensor.size for tensor in ends)


class _Keys:
    """Metadata under the architecture's name; a number may be given per layer."""

    def __init__(self, header: Header, architecture: str) -> None:
        self._header = header
        self._architecture = architecture

    def number(self, name: str, default: int = 0) -> int:
        found = self._header.integer(f"{self._architecture}.{name}")
        if found is not None:
            return found
        array = self._array(name)
        return max(array, default=default) if array else default

    def per_layer(self, name: str, count: int, default: int) -> tuple[int, ...]:
        array = self._array(name)
        if array:
            return tuple(array[:count]) + (array[-1],) * max(0, count - len(array))
        return (self.number(name, default),) * count

    def decimal(self, name: str) -> float:
        value = self._header.metadata.get(f"{self._architecture}.{name}")
        return float(value) if isinstance(value, int | float) else 0.0

    def flags(self, name: str) -> tuple[bool, ...] | int | None:
        """An array of flags, a period, or None when the file does not say."""
        array = self._array(name)
        if array:
            return tuple(bool(item) for item in array)
        return self._header.integer(f"{self._architecture}.{name}")

    def _array(self, name: str) -> list[int]:
        value = self._header.metadata.get(f"{self._architecture}.{name}")
        if not isinstance(value, ArrayValue):
            return []
        return [int(item) for item in value.head if isinstance(item, int)]


def facts_of(headers: Sequence[Header]) -> Facts:
    """The facts of a model from the headers of all its files, the first part first. Never raises: see `unknown`."""
    first = headers[0]
    architecture = first.text("general.architecture") or ""
    keys = _Keys(first, architecture)
    count = min(keys.number("block_count"), _MAX_LAYERS)
    blocks, inputs, outputs = _tensors(headers, count)
    window = families.window(architecture, keys.number("attention.sliding_window", -1), count)
    state = _state(keys)
    layers = _layers(keys, architecture, blocks, window)
    mla = _mla(keys)
    return Facts(
        architecture=architecture,
        layers=layers,
        cached_layers=families.cached_layers(
            architecture, count, keys.number("nextn_predict_layers"), keys.number("attention.shared_kv_layers")
        ),
        context_length=keys.number("context_length"),
        n_embd=keys.number("embedding_length"),
        n_vocab=_vocabulary(first, keys, inputs),
        window=window if any(layer.sliding for layer in layers) else 0,
        experts_used=keys.number("expert_used_count"),
        rope_dims=keys.number("rope.dimension_count"),
        mla=mla,
        state=state if any(layer.recurrent for layer in layers) else None,
        encoder=architecture in families.ENCODERS,
        input_tensors=MappingProxyType(inputs),
        output_tensors=MappingProxyType(outputs),
        final_softcap=keys.decimal("final_logit_softcapping") > 0,
        attention_softcap=keys.decimal("attn_logit_softcapping") > 0,
        unknown=_unknown(architecture, count, keys, layers, state),
        approximate=families.approximate(architecture),
    )


def _tensors(
    headers: Sequence[Header], count: int
) -> tuple[list[dict[str, TensorInfo]], dict[str, TensorInfo], dict[str, TensorInfo]]:
    blocks: list[dict[str, TensorInfo]] = [{} for _ in range(count)]
    inputs: dict[str, TensorInfo] = {}
    outputs: dict[str, TensorInfo] = {}
    for header in headers:
        for tensor in header.tensors:
            match = _BLOCK.fullmatch(tensor.name)
            if match is not None and int(match[1]) < count:
                blocks[int(match[1])][match[2]] = tensor
            elif tensor.name.startswith(("output", "cls", "dense_")):
                outputs[tensor.name] = tensor
            else:
                inputs[tensor.name] = tensor
    return blocks, inputs, outputs


def _layers(
    keys: _Keys, architecture: str, blocks: Sequence[Mapping[str, TensorInfo]], window: int
) -> tuple[Layer, ...]:
    count = len(blocks)
    heads = keys.per_layer("attention.head_count", count, 0)
    heads_kv = keys.per_layer("attention.head_count_kv", count, max(heads, default=0))
    default = keys.number("embedding_length") // max(*heads, 1) if heads else 0
    lengths = (keys.number("attention.key_length", default), keys.number("attention.value_length", default))
    sliding_lengths = (
        keys.number("attention.key_length_swa", lengths[0]),
        keys.number("attention.value_length_swa", lengths[1]),
    )
    sliding = families.sliding(architecture, count, window, keys.flags("attention.sliding_window_pattern"))
    n_ff = keys.per_layer("feed_forward_length", count, 0)
    recurrent = families.recurrent(architecture, heads_kv, n_ff, keys.number("full_attention_interval"))
    layers: list[Layer] = []
    for index, tensors in enumerate(blocks):
        key_length, value_length = sliding_lengths if sliding[index] else lengths
        keeps = architecture in families.BOTH or not recurrent[index]
        layers.append(
            Layer(
                heads[index],
                heads_kv[index] if keeps else 0,
                key_length,
                value_length,
                sliding[index],
                recurrent[index],
                MappingProxyType(dict(tensors)),
            )
        )
    return tuple(layers)


def _state(keys: _Keys) -> Recurrent | None:
    inner = keys.number("ssm.inner_size")
    if not inner:
        return None
    return Recurrent(
        d_conv=keys.number("ssm.conv_kernel"),
        d_inner=inner,
        d_state=keys.number("ssm.state_size"),
        n_group=keys.number("ssm.group_count"),
        dt_rank=keys.number("ssm.time_step_rank"),
    )


def _mla(keys: _Keys) -> Mla | None:
    key_length, value_length = keys.number("attention.key_length_mla"), keys.number("attention.value_length_mla")
    if not key_length or not value_length:
        return None
    return Mla(key_length, value_length, keys.number("attention.kv_lora_rank"))


def _vocabulary(header: Header, keys: _Keys, inputs: Mapping[str, TensorInfo]) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ArrayValue):
        return tokens.count
    embedding = inputs.get("token_embd.weight")
    return embedding.dims[1] if embedding is not None and len(embedding.dims) > 1 else keys.number("vocab_size")


def _unknown(
    architecture: str, count: int, keys: _Keys, layers: Sequence[Layer], state: Recurrent | None
) -> str | None:
    reason = families.unknown(architecture)
    if reason is not None:
        return reason
    if not count or not keys.number("embedding_length"):
        return "the file does not say how many layers or how wide they are"
    if keys.number("block_count") > _MAX_LAYERS or keys.number("expert_used_count") > _MAX_EXPERTS_USED:
        return "the file claims more layers or experts than any model has"
    if not all(layer.tensors for layer in layers):
        return "the file names layers that it has no tensors of"
    if any(not 0 <= layer.heads <= _MAX_HEADS or not 0 <= layer.heads_kv <= _MAX_HEADS for layer in layers):
        return "the file claims a number of heads that no model has"
    if state is None and any(layer.recurrent for layer in layers):
        return "the file does not say how large the state of its recurrent layers is"
    if state is not None and not any(layer.recurrent for layer in layers):
        return f"architecture {architecture} has recurrent layers that are not known to the estimator"
    return None
