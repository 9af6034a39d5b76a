"""The graph of one full batch: what the engine reserves its compute buffers for.

Follows llama.cpp's graph builders for dense layers, experts, compressed attention (MLA) and Mamba layers. Layers are
told apart by their tensors, not by their architecture's name.
"""

from cortex_gguf_inspector.estimate.architecture import Facts
from cortex_gguf_inspector.estimate.attention import SCALES_INPUT, Attention, BatchShape, Inputs
from cortex_gguf_inspector.estimate.feed_forward import Block, FeedForward
from cortex_gguf_inspector.estimate.graph import F16, F32, I32, I64, Graph, Tensor
from cortex_gguf_inspector.estimate.mamba import mamba_layer


class BatchGraph:
    """Builds the graph of a model for one batch."""

    def __init__(self, facts: Facts, shape: BatchShape) -> None:
        self._facts = facts
        self._shape = shape
        self.graph = Graph()
        self._inputs = self._make_inputs()
        self._attention = Attention(self.graph, facts, shape, self._inputs)

    def build(self) -> Graph:
        """The whole graph."""
        facts, graph = self._facts, self.graph
        hidden = self._embedding()
        last = facts.cached_layers - 1 if facts.cached_layers else facts.block_count - 1
        for index in range(last + 1):
            hidden = self._layer(index, hidden, last=index == last)
        hidden = self._attention.norm(hidden, facts.output_tensors.get("output_norm.weight"), self._shape.homes[-1])
        self._output(hidden)
        return graph

    # Ends

    def _make_inputs(self) -> Inputs:
        graph, shape, facts = self.graph, self._shape, self._facts
        kinds = {layer.sliding for layer in facts.layers if layer.heads_kv} or {False}
        widest = max((layer.heads_kv * layer.value_length for layer in facts.layers), default=1)
        value_entries = shape.tokens if shape.flash or facts.mla else shape.tokens * widest
        rotate = (shape.rotate_keys, shape.rotate_values)
        return Inputs(
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
        wide = (facts.n_embd, shape.tokens, 1, 1)
        hidden = graph.expand(graph.node("get_rows", wide, table, tokens))
        graph.expand(graph.input(F32, facts.n_embd, shape.tokens))
        if shape.mixed_input:
            self._mixed_input(table)
        if facts.architecture in SCALES_INPUT:
            hidden = graph.like("scale", hidden)
        return graph.expand(hidden)

    def _mixed_input(self, table: Tensor) -> None:
        """Rows of tokens put among rows of embeddings: reserved, although a batch of tokens does not need it."""
        graph, tokens = self.graph, self._shape.tokens
        rows = graph.node("get_rows", (self._facts.n_embd, tokens, 1, 1), table, graph.input(I32, tokens))
        given = graph.like("dup", graph.input(F32, self._facts.n_embd, tokens))
        slots = graph.input(I64, tokens)
        graph.expand(Tensor("set_rows", given.shape, given.stride, given.element, [rows, slots, given], view_of=given))

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
        normed = self._attention.norm(hidden, tensors.get("attn_norm.weight"), home)
        block = Block(self.graph, tensors, home, self._shape.expert_homes[index], self._facts, self._shape.tokens)
        if layer.recurrent and self._inputs.states is not None:
            current = mamba_layer(block, normed, self._shape.sequences, self._inputs.states)
        elif not layer.heads_kv:
            current = normed
        elif self._facts.mla is not None:
            current = self._attention.compressed(block, layer, normed, index)
        else:
            current = self._attention.plain(block, layer, normed, index)
        if last and self._shape.outputs < self._shape.tokens:
            current, hidden = self._rows(current), self._rows(hidden)
        post_attention = tensors.get("post_attention_norm.weight")
        feed_norm = tensors.get("ffn_norm.weight")
        if post_attention is not None and (feed_norm is not None or "post_ffw_norm.weight" in tensors):
            current = self._attention.norm(current, post_attention, home)
        elif feed_norm is None:
            feed_norm = post_attention
        residual = self.graph.like("add", current, hidden)
        current = self._attention.norm(residual, feed_norm, home) if feed_norm is not None else residual
        current = FeedForward(block, self._shape.outputs if last else self._shape.tokens).build(current)
        if "post_ffw_norm.weight" in tensors:
            current = self._attention.norm(current, tensors["post_ffw_norm.weight"], home)
        return self.graph.like("add", current, residual)

    def _rows(self, tensor: Tensor) -> Tensor:
        return self.graph.node("get_rows", (tensor.shape[0], self._shape.outputs, 1, 1), tensor, self._inputs.outputs)
