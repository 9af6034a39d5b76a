"""The graph of one full batch: what the engine reserves its compute buffers for.

Follows llama.cpp's graph builders for dense layers, experts, compressed attention (MLA) and Mamba layers. Layers are
told apart by their tensors, not by their architecture's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cortex_gguf_inspector.estimate.architecture import Facts, Layer
from cortex_gguf_inspector.estimate.caches import CacheShape
from cortex_gguf_inspector.estimate.feed_forward import Block, FeedForward
from cortex_gguf_inspector.estimate.graph import F16, F32, I32, I64, Graph, Tensor
from cortex_gguf_inspector.estimate.mamba import mamba_layer

_SCALES_INPUT = ("gemma", "gemma2", "gemma3", "gemma3n")
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
    fused_embedding_input: bool = True


@dataclass(slots=True)
class _Inputs:
    """Tensors that the engine fills; one set per kind of cache."""

    positions: Tensor
    masks: dict[bool, Tensor]
    key_index: dict[bool, Tensor]
    value_index: dict[bool, Tensor]
    key_rotation: Tensor | None
    value_rotation: Tensor | None
    outputs: Tensor
    states: Tensor | None


class BatchGraph:
    """Builds the graph of a model for one batch."""

    def __init__(self, facts: Facts, shape: BatchShape) -> None:
        self._facts = facts
        self._shape = shape
        self.graph = Graph()
        self._inputs = self._make_inputs()
        self._sliding = any(layer.sliding for layer in facts.layers)

    def build(self) -> Graph:
        """The whole graph."""
        facts, graph = self._facts, self.graph
        hidden = self._embedding()
        last = facts.cached_layers - 1 if facts.cached_layers else facts.block_count - 1
        for index in range(last + 1):
            hidden = self._layer(index, hidden, last=index == last)
        hidden = self._norm(hidden, facts.output_tensors.get("output_norm.weight"), self._shape.homes[-1])
        self._output(hidden)
        return graph

    # Ends

    def _make_inputs(self) -> _Inputs:
        graph, shape, facts = self.graph, self._shape, self._facts
        kinds = {layer.sliding for layer in facts.layers if layer.heads_kv} or {False}
        widest = max((layer.heads_kv * layer.value_length for layer in facts.layers), default=1)
        value_entries = shape.tokens if shape.flash or facts.mla else shape.tokens * widest
        rotate = (shape.rotate_keys, shape.rotate_values)
        return _Inputs(
            positions=graph.input(I32, shape.tokens),
            masks={sliding: self._mask(sliding) for sliding in kinds},
            key_index={sliding: graph.input(I64, shape.tokens) for sliding in kinds},
            value_index={sliding: graph.input(I64, value_entries) for sliding in kinds},
            key_rotation=graph.input(F32, rotate[0], rotate[0]) if rotate[0] else None,
            value_rotation=graph.input(F32, rotate[1], rotate[1]) if rotate[1] else None,
            outputs=graph.input(I32, shape.outputs),
            states=graph.input(I32, shape.sequences) if facts.state else None,
        )

    def _mask(self, sliding: bool) -> Tensor:
        shape = self._shape
        cells = shape.cache.sliding if sliding else shape.cache.sequence
        streams = shape.cache.streams
        return self.graph.input(F16 if shape.flash else F32, cells, shape.tokens // streams, 1, streams)

    def _embedding(self) -> Tensor:
        graph, shape, facts = self.graph, self._shape, self._facts
        tokens = graph.input(I32, shape.tokens)
        table = graph.external(0, 0, facts.n_embd, facts.n_vocab)
        if shape.fused_embedding_input:
            graph.expand(graph.input(F32, facts.n_embd, shape.tokens))
        hidden = graph.node("get_rows", (facts.n_embd, shape.tokens, 1, 1), table, tokens)
        if facts.architecture in _SCALES_INPUT:
            hidden = graph.like("scale", hidden)
        return graph.expand(hidden)

    def _output(self, hidden: Tensor) -> None:
        graph, facts = self.graph, self._facts
        weight = graph.external(self._shape.homes[-1], 0, facts.n_embd, facts.n_vocab)
        logits = graph.mul_mat(weight, hidden)
        if facts.final_softcap:
            logits = graph.like("scale", graph.like("unary", graph.like("scale", logits)))
        graph.expand(logits)

    # One layer

    def _layer(self, index: int, hidden: Tensor, *, last: bool) -> Tensor:
        layer = self._facts.layers[index]
        home = self._shape.homes[index]
        tensors = layer.tensors
        normed = self._norm(hidden, tensors.get("attn_norm.weight"), home)
        block = Block(self.graph, tensors, home, self._facts, self._shape.tokens)
        if layer.recurrent and self._inputs.states is not None:
            current = mamba_layer(block, normed, self._shape.sequences, self._inputs.states)
        elif not layer.heads_kv:
            current = normed
        elif self._facts.mla is not None:
            current = self._compressed_attention(block, layer, normed, index)
        else:
            current = self._attention(block, layer, normed, index)
        if last and self._shape.outputs < self._shape.tokens:
            current, hidden = self._rows(current), self._rows(hidden)
        post_attention = tensors.get("post_attention_norm.weight")
        feed_norm = tensors.get("ffn_norm.weight")
        if post_attention is not None and (feed_norm is not None or "post_ffw_norm.weight" in tensors):
            current = self._norm(current, post_attention, home)
        elif feed_norm is None:
            feed_norm = post_attention
        residual = self.graph.like("add", current, hidden)
        current = self._norm(residual, feed_norm, home) if feed_norm is not None else residual
        current = FeedForward(block, self._shape.outputs if last else self._shape.tokens).build(current)
        if "post_ffw_norm.weight" in tensors:
            current = self._norm(current, tensors["post_ffw_norm.weight"], home)
        return self.graph.like("add", current, residual)

    def _rows(self, tensor: Tensor) -> Tensor:
        return self.graph.node("get_rows", (tensor.shape[0], self._shape.outputs, 1, 1), tensor, self._inputs.outputs)

    def _norm(self, tensor: Tensor, weight: object, home: int) -> Tensor:
        graph = self.graph
        normed = graph.like("rms_norm", tensor)
        if weight is None:
            return normed
        return graph.like("mul", normed, graph.external(home, 0, tensor.shape[0]))

    # Attention

    def _attention(self, block: Block, layer: Layer, normed: Tensor, index: int) -> Tensor:
        query, key, value = self._projections(block, layer, normed)
        query = self._rotated(query, self._inputs.key_rotation)
        key = self._rotated(key, self._inputs.key_rotation)
        value = self._rotated(value, self._inputs.value_rotation)
        graph = self.graph
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
        graph, tokens = self.graph, self._shape.tokens
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
        if self._facts.architecture in _SCALES_INPUT:
            query = graph.like("scale", query)
        return query, key, value

    def _positioned(self, block: Block, tensor: Tensor, norm: str) -> Tensor:
        if norm in block.tensors:
            tensor = self._norm(tensor, block.tensors[norm], block.home)
        if not self._facts.rope_dims and self._facts.architecture == "jamba":
            return tensor
        return self.graph.like("rope", tensor, self._inputs.positions)

    def _rotated(self, tensor: Tensor, rotation: Tensor | None) -> Tensor:
        if rotation is None:
            return tensor
        side = rotation.shape[0]
        count = tensor.shape[0] * tensor.shape[1] * tensor.shape[2] * tensor.shape[3]
        flat = self.graph.reshape(tensor, side, count // side)
        return self.graph.reshape(self.graph.mul_mat(rotation, flat), *tensor.shape)

    def _compressed_attention(self, block: Block, layer: Layer, normed: Tensor, index: int) -> Tensor:
        graph, tokens, mla = self.graph, self._shape.tokens, self._facts.mla
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
        compressed = self._norm(compressed, True, block.home)
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
        query = self._norm(block.linear("attn_q_a", normed, self._facts.n_embd, rank), True, block.home)
        return block.linear("attn_q_b", query, rank, width)

    def _attend(
        self, layer: Layer, query: Tensor, cache: Tensor, index: int, values: tuple[int, int]
    ) -> Tensor:
        """`values` are the heads and the width of the values as the cache holds them."""
        graph, shape = self.graph, self._shape
        streams = shape.cache.streams
        tokens = shape.tokens // streams
        cells = shape.cache.sliding if layer.sliding else shape.cache.sequence
        mask = self._inputs.masks[layer.sliding]
        head_stride = query.stride[1]
        step = head_stride * query.shape[1]
        query = graph.view(
            query,
            (query.shape[0], query.shape[1], tokens, streams),
            (query.stride[0], head_stride, step, step * tokens),
        )
        query = graph.permute(query, (0, 2, 1, 3))
        keys = graph.view(cache, (query.shape[0], cells, values[0], streams))
        sinks = (graph.external(shape.homes[index], 0, layer.heads, weight=True),) if _SINKS in layer.tensors else ()
        mla = self._facts.mla
        width = mla.value_length if mla else values[1]
        if shape.flash:
            held = graph.view(cache, (values[1], cells, values[0], streams))
            current = graph.node(
                "flash_attn", (values[1], layer.heads, tokens, streams), query, keys, held, mask, *sinks
            )
            current.home = self._forced_home(index)
            if mla is not None:
                expand = graph.external(shape.homes[index], 0, values[1], width, layer.heads)
                current = graph.mul_mat(expand, graph.permute(current, (0, 2, 1, 3)))
                current = graph.cont(graph.permute(current, (0, 2, 1, 3)))
            return graph.reshape(current, width * layer.heads, shape.tokens)
        scores = graph.node("mul_mat", (cells, tokens, layer.heads, streams), keys, query)
        if self._facts.attention_softcap:
            scores = graph.like("scale", graph.like("unary", graph.like("scale", scores)))
        scores = graph.like("soft_max", scores, mask, *sinks)
        held = graph.view(cache, (cells, values[1], values[0], streams))
        if mla is not None:
            held = graph.cont(Tensor("view", held.shape, held.stride, F16, [held], view_of=cache))
        current = graph.node("mul_mat", (values[1], tokens, layer.heads, streams), held, scores)
        if mla is not None:
            expand = graph.external(shape.homes[index], 0, values[1], width, layer.heads)
            current = graph.mul_mat(expand, current)
        current.home = self._forced_home(index)
        return graph.cont(graph.permute(current, (0, 2, 1, 3)), width * layer.heads, shape.tokens)

    def _forced_home(self, index: int) -> int | None:
        """Attention runs where the cache lies when that is kept off the layer's device."""
        home = self._shape.cache_homes[index]
        return home if home != self._shape.homes[index] else None


def tensor_rows(tensors: Mapping[str, object], name: str) -> bool:
    """Whether a layer has a tensor of that name."""
    return name in tensors
