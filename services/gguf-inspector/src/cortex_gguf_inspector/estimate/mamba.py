"""Graph of a Mamba layer (the first version, as jamba has it)."""

from cortex_gguf_inspector.estimate.feed_forward import Block
from cortex_gguf_inspector.estimate.graph import F32, Tensor


def mamba_layer(block: Block, x: Tensor, sequences: int, states: Tensor) -> Tensor:
    """One recurrent layer over `sequences` sequences of equal length."""
    graph, state = block.graph, block.facts.state
    if state is None:
        return x
    steps = block.tokens // sequences
    inner, width = state.d_inner, state.d_conv - 1
    cache = graph.external(block.home, 0, 1, weight=False)
    past = graph.node("get_rows", (state.conv_elements, sequences, 1, 1), graph.view(cache, (1, 1, 1, 1)), states)
    past = graph.expand(graph.reshape(past, width, inner, sequences))
    rows = graph.reshape(x, x.shape[0], steps, sequences)
    both = block.linear("ssm_in", rows, x.shape[0], 2 * inner)
    half = (inner, steps, sequences, 1)
    signal, gate = graph.view(both, half, both.stride), graph.view(both, half, both.stride, at_start=False)
    history = graph.node("concat", (width + steps, inner, sequences, 1), past, graph.permute(signal, (1, 0, 2, 3)))
    tail = graph.view(history, (width, inner, sequences, 1), history.stride)
    graph.expand(Tensor("cpy", (width, inner, sequences, 1), tail.stride, F32, [tail, cache], view_of=cache))
    current = graph.node("ssm_conv", half, history, graph.external(block.home, 0, 1))
    current = graph.like("unary", graph.like("add", current, graph.external(block.home, 0, 1)))
    mixed = block.linear("ssm_x", current, inner, state.dt_rank + 2 * state.d_state)

    def part(size: int) -> Tensor:
        view = graph.view(mixed, (size, steps, sequences, 1), mixed.stride)
        normed = graph.like("rms_norm", view)
        return graph.like("mul", normed, graph.external(block.home, 0, 1))

    delta, first, second = part(state.dt_rank), part(state.d_state), part(state.d_state)
    delta = block.linear("ssm_dt", delta, state.dt_rank, inner)
    scanned_elements = inner * steps * sequences + state.d_state * inner * sequences
    scan = graph.node(
        "ssm_scan",
        (scanned_elements, 1, 1, 1),
        graph.view(cache, (1, 1, 1, 1)),
        graph.reshape(current, 1, inner, steps, sequences),
        delta,
        graph.external(block.home, 0, 1),
        first,
        second,
        states,
    )
    graph.expand(scan)
    rest = graph.view(scan, (state.d_state * inner * sequences, 1, 1, 1), at_start=False)
    graph.expand(Tensor("cpy", rest.shape, rest.stride, F32, [rest, cache], view_of=cache))
    result = graph.view(scan, half)
    skip = graph.like("mul", current, graph.external(block.home, 0, 1))
    result = graph.like("add", result, skip)
    result = graph.node("glu", half, graph.cont(gate), result)
    result = block.linear("ssm_out", result, inner, x.shape[0])
    return graph.reshape(result, x.shape[0], block.tokens)
