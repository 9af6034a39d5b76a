"""What the header of a GGUF file says, as values."""

from collections.abc import Mapping
from dataclasses import dataclass

from cortex_gguf_inspector.ggml import ValueType

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """A metadata array. `head` is the whole of a short array of numbers, else the first few elements."""

    element_type: ValueType
    count: int
    head: tuple[Scalar, ...]
    offset: int = 0
    """Of the first element in the file; `reader.array_items` reads them all."""


Value = Scalar | ArrayValue


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `dims` innermost first, `offset` relative to the start of the tensor data, sizes in bytes."""

    name: str
    dims: tuple[int, ...]
    type_id: int
    offset: int
    elements: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole, checked header. `digest` is the SHA-256 of its bytes and of samples of the data."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    header_size: int
    data_offset: int
    file_size: int
    digest: bytes
    kept_bytes: int = 0
    """Memory its texts and short arrays take, about."""

    def integer(self, key: str) -> int | None:
        """The value of an integer key; None when absent or of another type (a bool is no integer)."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """The value of a string key; None when absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None
