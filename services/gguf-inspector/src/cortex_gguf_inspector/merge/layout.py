"""The header of a merged file, as the reference tool (`llama-gguf-split --merge`) writes it. Pure.

Metadata of part 1 in its order, but `split.count`, which becomes 0 and goes to the end; tensor infos in the order of the
parts; every tensor padded. The reference pads to 32 even where the metadata announce another alignment, and so makes a
file that no reader accepts; here the announced alignment holds.
"""

import struct
from collections.abc import Iterator, Sequence

from cortex_gguf_inspector.ggml import SCALAR_FORMATS, ValueType
from cortex_gguf_inspector.header import TensorInfo

VERSION = 3
SPLIT_COUNT = b"split.count"
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
COUNTS = struct.Struct("<4sIQQ")


def metadata_entries(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and raw bytes (key included) of every metadata entry of a header that the reader has accepted."""
    _, _, _, count = COUNTS.unpack_from(header)
    position = COUNTS.size
    for _ in range(count):
        start = position
        key_end = position + 8 + U64.unpack_from(header, position)[0]
        key = header[position + 8 : key_end]
        position = _value_end(header, key_end)
        yield key, header[start:position]


def _value_end(header: bytes, position: int) -> int:
    (value_type,) = U32.unpack_from(header, position)
    position += 4
    count = 1
    if value_type == ValueType.ARRAY:
        (value_type,) = U32.unpack_from(header, position)
        (count,) = U64.unpack_from(header, position + 4)
        position += 12
    if value_type != ValueType.STRING:
        return position + count * struct.calcsize(f"<{SCALAR_FORMATS[ValueType(value_type)]}")
    for _ in range(count):
        position += 8 + U64.unpack_from(header, position)[0]
    return position


def merged_header(first: bytes, tensors: Sequence[TensorInfo], alignment: int) -> tuple[bytes, list[int]]:
    """The padded header of the merged file, and the offset of each tensor behind it.

    Args:
        first: the raw header of part 1.
        tensors: of all parts, in order.
        alignment: bytes; what `general.alignment` of part 1 says, else 32.
    """
    entries = [raw for key, raw in metadata_entries(first) if key != SPLIT_COUNT]
    entries.append(U64.pack(len(SPLIT_COUNT)) + SPLIT_COUNT + U32.pack(ValueType.UINT16) + struct.pack("<H", 0))
    infos: list[bytes] = []
    offsets: list[int] = []
    running = 0
    for tensor in tensors:
        infos.append(_tensor_info(tensor, running))
        offsets.append(running)
        running += padded(tensor.size, alignment)
    head = COUNTS.pack(b"GGUF", VERSION, len(tensors), len(entries))
    header = b"".join([head, *entries, *infos])
    return header.ljust(padded(len(header), alignment), b"\0"), offsets


def padded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


def _tensor_info(tensor: TensorInfo, offset: int) -> bytes:
    name = tensor.name.encode("utf-8", errors="surrogateescape")
    dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
    return U64.pack(len(name)) + name + dims + U32.pack(tensor.type_id) + U64.pack(offset)
