"""Graph of the second half of a layer: dense, with experts, with shared experts."""

from collections.abc import Mapping
from dataclasses import dataclass

from cortex_gguf_inspector.estimate.architecture import Facts
from cortex_gguf_inspector.estimate.graph import F32, I32, Graph, Tensor
from cortex_gguf_inspector.header import TensorInfo

_RAW_LOGITS = frozenset({"gpt-oss"})
"""Experts are chosen by the router's output itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """The tensors of one layer and where they lie."""

    graph: Graph
    tensors: Mapping[str, TensorInfo]
    home: int
    expert_home: int
    facts: Facts
    tokens: int

    def linear(self, name: str, x: Tensor, width_in: int, width_out: int) -> Tensor:
        """A matrix and, where the layer has one, its bias; the file's own size wins over the given one."""
        info = self.tensors.get(f"{name}.weight")
        if info is not None and len(info.dims) > 1:
            width_in, width_out = info.dims[0], info.dims[1]
        result = self.graph.mul_mat(self.graph.external(self.home, 0, width_in, width_out), x)
        if f"{name}.bias" in self.tensors:
            result = self.graph.like("add", result, self.graph.external(self.home, 0, width_out))
        return result

    def dims(self, name: str) -> tuple[int, ...]:
        """Dimensions of a tensor that is known to be there."""
        return self.tensors[name].dims


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Builds the second half of one layer for `tokens` rows."""

    block: Block
    tokens: int

    def build(self, x: Tensor) -> Tensor:
        """Result without the residual."""
        if "ffn_gate_inp.weight" not in self.block.tensors:
            return self._dense(x, "")
        experts = self._experts(x)
        if "ffn_up_shexp.weight" in self.block.tensors:
            return self.block.graph.like("add", experts, self._dense(x, "_shexp"))
        return experts

    def _dense(self, x: Tensor, suffix: str) -> Tensor:
        block, graph = self.block, self.block.graph
        up_name = f"ffn_up{suffix}"
        if f"{up_name}.weight" not in block.tensors:
            return x
        n_embd, width = block.dims(f"{up_name}.weight")[:2]
        up = block.linear(up_name, x, n_embd, width)
        gated = f"ffn_gate{suffix}.weight" in block.tensors
        down_in = block.dims(f"ffn_down{suffix}.weight")[0]
        if gated:
            gate = block.linear(f"ffn_gate{suffix}", x, n_embd, width)
            current = graph.node("glu", gate.shape, gate, up)
        elif down_in < width:
            current = graph.node("glu", (down_in, up.shape[1], 1, 1), up)
        else:
            current = graph.like("unary", up)
        return block.linear(f"ffn_down{suffix}", current, down_in, n_embd)

    def _experts(self, x: Tensor) -> Tensor:
        block, graph, used = self.block, self.block.graph, max(self.block.facts.experts_used, 1)
        experts = block.dims("ffn_gate_inp.weight")[1]
        tokens = self.tokens
        selected, weights = self._route(x, experts, used)
        graph.expand(weights)
        rows = graph.reshape(x, x.shape[0], 1, tokens)
        current = self._expert_activation(rows, selected, used)
        down_width = block.dims("ffn_down_exps.weight")[1]
        result = self._matrix("ffn_down_exps", current, selected, (down_width, used))
        result = graph.like("mul", result, weights)
        graph.expand(result)
        row = result.stride[2]
        views = [
            graph.view(result, (down_width, tokens, 1, 1), (F32, row, row, row), at_start=i == 0) for i in range(used)
        ]
        for view in views:
            graph.expand(view)
        total = views[0]
        for view in views[1:]:
            total = graph.expand(graph.node("add", (down_width, tokens, 1, 1), total, view))
        return graph.cont(total) if used == 1 else total

    def _route(self, x: Tensor, experts: int, used: int) -> tuple[Tensor, Tensor]:
        block, graph, tokens = self.block, self.block.graph, self.tokens
        logits = block.linear("ffn_gate_inp", x, x.shape[0], experts)
        raw = block.facts.architecture in _RAW_LOGITS
        scores = logits if raw else graph.like("soft_max", logits)
        choosing = scores
        if "exp_probs_b.bias" in block.tensors:
            choosing = graph.like("add", scores, graph.external(block.home, 0, experts))
        order = graph.node("argsort", choosing.shape, choosing, element=I32)
        selected = graph.view(order, (used, tokens, 1, 1), order.stride)
        weights = graph.node("get_rows", (1, used, tokens, 1), graph.reshape(scores, 1, experts, tokens), selected)
        if raw:
            weights = graph.like("soft_max", graph.reshape(weights, used, tokens))
            weights = graph.reshape(weights, 1, used, tokens)
        return selected, weights

    def _expert_activation(self, rows: Tensor, selected: Tensor, used: int) -> Tensor:
        block, graph = self.block, self.block.graph
        if "ffn_gate_up_exps.weight" in block.tensors:
            width = block.dims("ffn_gate_up_exps.weight")[1]
            both = self._matrix("ffn_gate_up_exps", rows, selected, (width, used))
            half = (width // 2, used, self.tokens, 1)
            gate, up = graph.view(both, half, both.stride), graph.view(both, half, both.stride, at_start=False)
            return graph.node("glu", half, gate, up)
        width = block.dims("ffn_up_exps.weight")[1]
        up = self._matrix("ffn_up_exps", rows, selected, (width, used))
        if "ffn_gate_exps.weight" not in block.tensors:
            return graph.like("unary", up)
        gate = self._matrix("ffn_gate_exps", rows, selected, (width, used))
        return graph.node("glu", gate.shape, gate, up)

    def _matrix(self, name: str, x: Tensor, selected: Tensor, size: tuple[int, int]) -> Tensor:
        """ggml_mul_mat_id and the experts' biases."""
        graph, home = self.block.graph, self.block.expert_home
        result = graph.node("mul_mat_id", (size[0], size[1], self.tokens, 1), graph.external(home, 0, 1), x, selected)
        if f"{name}.bias" in self.block.tensors:
            result = graph.like("add_id", result, graph.external(home, 0, 1), selected)
        return result
