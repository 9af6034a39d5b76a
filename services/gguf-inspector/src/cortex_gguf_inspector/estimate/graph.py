"""A compute graph without the computing: sizes, sources and views of tensors, in the order the engine would run them.

Mirrors what of ggml decides the size of a compute buffer: which tensors are views, which may take the place of a
source, in which order they are needed. Names of operations are ggml's.
"""

from dataclasses import dataclass, field
from typing import Self

F32, F16, I32, I64 = 4, 2, 4, 8
"""Element sizes in bytes."""

IN_PLACE = frozenset({"scale", "add", "add_id", "sub", "mul", "div", "unary", "rope", "rms_norm", "clamp", "soft_max"})
"""Operations whose result may overwrite a source of the same layout (ggml_op_can_inplace)."""

Shape = tuple[int, int, int, int]
EXTERNAL = "external"


@dataclass(slots=True, eq=False)
class Tensor:
    """One tensor. `size` in bytes; `stride` in bytes per dimension; `home` is the device of external data."""

    op: str
    shape: Shape
    stride: Shape
    element: int
    sources: list["Tensor"] = field(default_factory=list["Tensor"])
    view_of: "Tensor | None" = None
    at_start: bool = True
    """A view of the first byte of its source."""
    is_input: bool = False
    external: bool = False
    """Weights and caches: allocated elsewhere."""
    home: int | None = None
    constant_weight: bool = False
    external_bytes: int = 0
    stored_bytes: int | None = None
    """Size of a view into a cache, whose element type is not modelled."""

    @property
    def size(self) -> int:
        """Bytes the tensor takes when it is no view."""
        if self.external:
            return self.external_bytes
        if self.stored_bytes is not None:
            return self.stored_bytes
        count = self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]
        return count * self.element

    @property
    def layout(self) -> tuple[int, Shape, Shape]:
        """What must be equal for one tensor to take the place of another."""
        return self.element, self.shape, self.stride


def contiguous(shape: Shape, element: int) -> Shape:
    """Strides of a tensor without gaps."""
    first = element * shape[0]
    second = first * shape[1]
    return (element, first, second, second * shape[2])


def shaped(*dims: int) -> Shape:
    """Four dimensions, innermost first; missing ones are 1."""
    padded = (*dims, 1, 1, 1, 1)
    return (padded[0], padded[1], padded[2], padded[3])


class Graph:
    """Collects nodes in ggml's order: sources before what needs them, depth first."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leafs: list[Tensor] = []
        self._visited: set[int] = set()
        self._kept: list[Tensor] = []

    def expand(self, tensor: Tensor) -> Tensor:
        """Append a tensor and everything it needs that is not there yet."""
        stack: list[tuple[Tensor, int]] = [(tensor, 0)]
        while stack:
            current, position = stack.pop()
            if position == 0:
                if id(current) in self._visited:
                    continue
                self._visited.add(id(current))
                self._kept.append(current)
            needs = current.sources
            if position < len(needs):
                stack.append((current, position + 1))
                stack.append((needs[position], 0))
                continue
            (self.nodes if current.op != "none" else self.leafs).append(current)
        return tensor

    # Leafs

    def input(self, element: int, *dims: int) -> Tensor:
        """A tensor that the engine fills before it computes; it is never overwritten."""
        shape = shaped(*dims)
        return Tensor("none", shape, contiguous(shape, element), element, is_input=True)

    def external(self, home: int, size: int, *dims: int, weight: bool = True) -> Tensor:
        """A weight or a cache on the device `home`."""
        shape = shaped(*dims)
        return Tensor(
            "none",
            shape,
            contiguous(shape, F32),
            F32,
            external=True,
            home=home,
            constant_weight=weight,
            external_bytes=size,
        )

    # Nodes

    def node(self, op: str, shape: Shape, *sources: Tensor, element: int = F32) -> Tensor:
        """A tensor computed from others."""
        return Tensor(op, shape, contiguous(shape, element), element, list(sources))

    def like(self, op: str, first: Tensor, *others: Tensor) -> Tensor:
        """An element-wise operation: the result is laid out like the first source (ggml_dup_tensor)."""
        return self.node(op, first.shape, first, *others, element=first.element)

    def mul_mat(self, weight: Tensor, x: Tensor) -> Tensor:
        """ggml_mul_mat; always F32."""
        return self.node("mul_mat", (weight.shape[1], x.shape[1], x.shape[2], x.shape[3]), weight, x)

    def view(self, source: Tensor, shape: Shape, stride: Shape | None = None, *, at_start: bool = True) -> Tensor:
        """A view; views of views lead to the same owner."""
        owner = source.view_of or source
        return Tensor(
            "view",
            shape,
            stride or contiguous(shape, source.element),
            source.element,
            [source],
            view_of=owner,
            at_start=at_start and source.at_start,
        )

    def reshape(self, source: Tensor, *dims: int) -> Tensor:
        """ggml_reshape of contiguous data."""
        return self.view(source, shaped(*dims))

    def permute(self, source: Tensor, order: tuple[int, int, int, int]) -> Tensor:
        """ggml_permute: dimension i of the source becomes dimension order[i]."""
        shape, stride = [0] * 4, [0] * 4
        for index, target in enumerate(order):
            shape[target], stride[target] = source.shape[index], source.stride[index]
        return self.view(source, shaped(*shape), (stride[0], stride[1], stride[2], stride[3]))

    def cont(self, source: Tensor, *dims: int) -> Tensor:
        """A contiguous copy."""
        return self.node("cont", shaped(*dims) if dims else source.shape, source, element=source.element)

    def store(self, cache: Tensor, value: Tensor, index: Tensor) -> Tensor:
        """ggml_set_rows into a cache: a view of the cache, so it takes no memory."""
        node = Tensor("set_rows", cache.shape, cache.stride, cache.element, [value, index, cache], view_of=cache)
        return self.expand(node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
