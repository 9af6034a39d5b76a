"""Graph of the first half of a layer: attention, plain or compressed (MLA)."""

import math
from dataclasses import dataclass
from fractions import Fraction

from cortex_gguf_inspector.estimate.architecture import Facts, Layer
from cortex_gguf_inspector.estimate.caches import CacheShape
from cortex_gguf_inspector.estimate.feed_forward import Block
from cortex_gguf_inspector.estimate.graph import F16, F32, Graph, Tensor
from cortex_gguf_inspector.estimate.placement import CPU

SCALES_INPUT = ("gemma", "gemma2", "gemma3", "gemma3n")
_SINKS = "attn_sinks.weight"


@dataclass(frozen=True, slots=True)
class BatchShape:
    """What decides the size of the graph. `homes` is the device per layer id, the output's id last; 0 is the CPU."""

    tokens: int
    sequences: int
    outputs: int
    flash: bool
    rotate_keys: int
    """Side of the rotation that quantized keys need; 0 for none."""
    rotate_values: int
    cache: CacheShape
    homes: tuple[int, ...]
    cache_homes: tuple[int, ...]
    expert_homes: tuple[int, ...]
    """Where the experts of each layer lie: they may stay on the CPU."""
    cast_keys: bool = False
    """Keys in f32 are converted for flash attention."""
    cast_values: bool = False
    mixed_input: bool = True
    """Newer engines take tokens and embeddings in one batch."""


@dataclass(slots=True)
class Inputs:
    """Tensors that the engine fills; one set per kind of cache."""

    positions: Tensor
    masks: dict[bool, Tensor]
    key_index: dict[bool, Tensor]
    value_index: dict[bool, Tensor]
    key_rotation: Tensor | None
    value_rotation: Tensor | None
    outputs: Tensor
    states: Tensor | None


class Attention:
    """Adds the attention of one layer after the other to a graph."""

    def __init__(self, graph: Graph, facts: Facts, shape: BatchShape, inputs: Inputs) -> None:
        self._graph = graph
        self._facts = facts
        self._shape = shape
        self._inputs = inputs
        self._all_off_cpu = CPU not in shape.homes

    def norm(self, tensor: Tensor, weight: object, home: int) -> Tensor:
        """A root-mean-square norm and its weight, if it has one."""
        graph = self._graph
        normed = graph.like("rms_norm", tensor)
        if weight is None:
            return normed
        if self._all_off_cpu:
            normed.home = home
        return graph.like("mul", normed, graph.external(home, 0, tensor.shape[0]))

    def plain(self, block: Block, layer: Layer, normed: Tensor, index: int) -> Tensor:
        """Attention with a cache of keys and values; without the residual."""
        query, key, value = self._projections(block, layer, normed)
        query = self._rotated(query, self._inputs.key_rotation)
        key = self._rotated(key, self._inputs.key_rotation)
        value = self._rotated(value, self._inputs.value_rotation)
        graph = self._graph
        for tensor in (query, value, key):
            graph.expand(tensor)
        cache = graph.external(self._shape.cache_homes[index], 0, 1, weight=False)
        tokens = self._shape.tokens
        for tensor, indices in ((key, self._inputs.key_index), (value, self._inputs.value_index)):
            flat = graph.view(tensor, (tensor.shape[0] * tensor.shape[1], tokens, 1, 1))
            graph.store(cache, flat, indices[layer.sliding])
        current = self._attend(layer, query, cache, index, (layer.heads_kv, layer.value_length))
        current = self._rotated(current, self._inputs.value_rotation)
        return block.linear("attn_output", current, layer.heads * layer.value_length, self._facts.n_embd)

    def _projections(self, block: Block, layer: Layer, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        graph, tokens = self._graph, self._shape.tokens
        sizes = (
            (layer.key_length, layer.heads),
            (layer.key_length, layer.heads_kv),
            (layer.value_length, layer.heads_kv),
        )
        if "attn_qkv.weight" in block.tensors:
            joined = block.linear("attn_qkv", normed, self._facts.n_embd, sum(a * b for a, b in sizes))
            row = joined.stride[1]
            parts = [graph.view(joined, (a, b, tokens, 1), (F32, F32 * a, row, row * tokens)) for a, b in sizes]
        else:
            names = ("attn_q", "attn_k", "attn_v")
            parts = [
                graph.reshape(block.linear(name, normed, self._facts.n_embd, a * b), a, b, tokens)
                for name, (a, b) in zip(names, sizes, strict=True)
            ]
        query, key, value = parts
        query = self._positioned(block, query, "attn_q_norm.weight")
        key = self._positioned(block, key, "attn_k_norm.weight")
        if self._facts.architecture in SCALES_INPUT:
            query = graph.like("scale", query)
        return query, key, value

    def _positioned(self, block: Block, tensor: Tensor, norm: str) -> Tensor:
        if norm in block.tensors:
            tensor = self.norm(tensor, block.tensors[norm], block.home)
        if not self._facts.rope_dims and self._facts.architecture == "jamba":
            return tensor
        return self._graph.like("rope", tensor, self._inputs.positions)

    def _rotated(self, tensor: Tensor, rotation: Tensor | None) -> Tensor:
        if rotation is None:
            return tensor
        side = rotation.shape[0]
        count = tensor.shape[0] * tensor.shape[1] * tensor.shape[2] * tensor.shape[3]
        flat = self._graph.reshape(tensor, side, count // side)
        return self._graph.reshape(self._graph.mul_mat(rotation, flat), *tensor.shape)

    def compressed(self, block: Block, layer: Layer, normed: Tensor, index: int) -> Tensor:
        """Latent attention (MLA) with a cache of one compressed key; without the residual."""
        graph, tokens, mla = self._graph, self._shape.tokens, self._facts.mla
        assert mla is not None
        rank, rope = mla.kv_lora_rank, layer.key_length - mla.kv_lora_rank
        nope = mla.key_length - rope
        query = self._compressed_query(block, normed, layer.heads * mla.key_length)
        query = graph.reshape(query, mla.key_length, layer.heads, tokens)
        joined = block.linear("attn_kv_a_mqa", normed, self._facts.n_embd, rank + rope)
        row = joined.stride[1]
        compressed = graph.view(joined, (rank, tokens, 1, 1), (F32, row, row * tokens, row * tokens))
        key_place = graph.view(joined, (rope, 1, tokens, 1), (F32, row, row, row * tokens), at_start=False)
        key_place = graph.like("rope", key_place, self._inputs.positions)
        compressed = self.norm(compressed, True, block.home)
        plain = graph.view(query, (nope, layer.heads, tokens, 1), query.stride)
        place = graph.view(query, (rope, layer.heads, tokens, 1), query.stride, at_start=False)
        place = graph.like("rope", place, self._inputs.positions)
        absorb = graph.external(block.home, 0, nope, rank, layer.heads)
        absorbed = graph.mul_mat(absorb, graph.permute(plain, (0, 2, 1, 3)))
        full_query = graph.node(
            "concat", (rank + rope, layer.heads, tokens, 1), graph.permute(absorbed, (0, 2, 1, 3)), place
        )
        value = graph.reshape(compressed, rank, 1, tokens)
        key = graph.node("concat", (rank + rope, 1, tokens, 1), value, key_place)
        for tensor in (full_query, value, key):
            graph.expand(tensor)
        cache = graph.external(self._shape.cache_homes[index], 0, 1, weight=False)
        graph.store(cache, graph.view(key, (rank + rope, tokens, 1, 1)), self._inputs.key_index[layer.sliding])
        current = self._attend(layer, full_query, cache, index, (1, rank))
        return block.linear("attn_output", current, layer.heads * mla.value_length, self._facts.n_embd)

    def _compressed_query(self, block: Block, normed: Tensor, width: int) -> Tensor:
        if "attn_q_a.weight" not in block.tensors:
            return block.linear("attn_q", normed, self._facts.n_embd, width)
        rank = block.tensors["attn_q_a.weight"].dims[1]
        query = self.norm(block.linear("attn_q_a", normed, self._facts.n_embd, rank), True, block.home)
        return block.linear("attn_q_b", query, rank, width)

    def _attend(self, layer: Layer, query: Tensor, cache: Tensor, index: int, values: tuple[int, int]) -> Tensor:
        """`values` are the heads and the width of the values as the cache holds them."""
        graph, shape = self._graph, self._shape
        streams = shape.cache.streams
        tokens = shape.tokens // streams
        head_stride = query.stride[1]
        step = head_stride * query.shape[1]
        query = graph.view(
            query,
            (query.shape[0], query.shape[1], tokens, streams),
            (query.stride[0], head_stride, step, step * tokens),
        )
        query = graph.permute(query, (0, 2, 1, 3))
        cells = shape.cache.sliding if layer.sliding else shape.cache.sequence
        keys = self._stored(cache, (query.shape[0], cells, values[0], streams), shape.cache.key_bytes)
        sinks = (graph.external(shape.homes[index], 0, layer.heads),) if _SINKS in layer.tensors else ()
        extra = (self._inputs.masks[layer.sliding], *sinks)
        width = self._facts.mla.value_length if self._facts.mla else values[1]
        attend = self._flash if shape.flash else self._scores
        held = (values[1], cells, values[0], streams)
        current = attend(layer, (query, keys, self._held(cache, held)), extra, self._expansion(index, layer, values[1]))
        if not shape.flash:
            current = graph.cont(graph.permute(current, (0, 2, 1, 3)), width * layer.heads, shape.tokens)
            if shape.cache_homes[index] != shape.homes[index]:
                current.home = shape.cache_homes[index]
            return current
        return graph.reshape(current, width * layer.heads, shape.tokens)

    def _held(self, cache: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        size = self._shape.cache.key_bytes if self._facts.mla else self._shape.cache.value_bytes
        if not self._shape.flash:
            shape = (shape[1], shape[0], shape[2], shape[3])
        return self._stored(cache, shape, size)

    def _stored(self, cache: Tensor, shape: tuple[int, int, int, int], element: Fraction) -> Tensor:
        """A view of cached keys or values; it takes memory only where it is copied to another device."""
        view = self._graph.view(cache, shape)
        view.stored_bytes = int(math.prod(shape) * element)
        return view

    def _expansion(self, index: int, layer: Layer, width: int) -> Tensor | None:
        """The matrix that makes values of a compressed cache."""
        mla = self._facts.mla
        if mla is None:
            return None
        return self._graph.external(self._shape.homes[index], 0, width, mla.value_length, layer.heads)

    def _flash(
        self, layer: Layer, taken: tuple[Tensor, Tensor, Tensor], extra: tuple[Tensor, ...], expansion: Tensor | None
    ) -> Tensor:
        graph, (query, keys, held) = self._graph, taken
        if self._shape.cast_keys:
            keys = graph.node("cpy", keys.shape, keys, element=F16)
        if self._shape.cast_values:
            held = graph.node("cpy", held.shape, held, element=F16)
        shape = (held.shape[0], layer.heads, query.shape[1], query.shape[3])
        current = graph.node("flash_attn", shape, query, keys, held, *extra)
        if expansion is None:
            return current
        current = graph.mul_mat(expansion, graph.permute(current, (0, 2, 1, 3)))
        return graph.cont(graph.permute(current, (0, 2, 1, 3)))

    def _scores(
        self, layer: Layer, taken: tuple[Tensor, Tensor, Tensor], extra: tuple[Tensor, ...], expansion: Tensor | None
    ) -> Tensor:
        graph, (query, keys, held) = self._graph, taken
        scores = graph.node("mul_mat", (keys.shape[1], query.shape[1], layer.heads, query.shape[3]), keys, query)
        if self._facts.attention_softcap:
            scores = graph.like("scale", graph.like("unary", graph.like("scale", scores)))
        scores = graph.like("soft_max", scores, *extra)
        if expansion is not None:
            held = graph.node("cont", held.shape, held, element=F16)
        current = graph.node("mul_mat", (held.shape[1], query.shape[1], layer.heads, query.shape[3]), held, scores)
        return current if expansion is None else graph.mul_mat(expansion, current)
