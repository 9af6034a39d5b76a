"""Reads and checks the header of one GGUF file (v2, v3). The file is hostile input: every refusal is a GgufError.

Checks follow ggml's own reader (gguf.cpp), so that what passes here is not refused later for its header.
"""

import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from cortex_gguf_inspector import sniff
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.ggml import REMOVED_TENSOR_TYPES, TENSOR_TYPES, ValueType
from cortex_gguf_inspector.header import ArrayValue, Header, Scalar, TensorInfo, Value
from cortex_gguf_inspector.limits import (
    DEFAULT_ALIGNMENT,
    MAX_ARRAY_ELEMENTS,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_STRING_BYTES,
    MAX_TENSOR_NAME_BYTES,
    Limits,
)
from cortex_gguf_inspector.window import SCALARS, Source, Window

MIN_ENTRY_BYTES = 8 + 1 + 4 + 1
MIN_TENSOR_BYTES = 8 + 4 + 4 + 8
ALIGNMENT_KEY = "general.alignment"
SUPPORTED_VERSIONS = (2, 3)
SAMPLE_BYTES = 16 * 1024
SAMPLES = 8
TENSOR_FIELDS = tuple(struct.Struct(f"<{dimensions}QIQ") for dimensions in range(MAX_DIMENSIONS + 1))
"""Dimensions, type and offset of a tensor, by its number of dimensions."""


def read_header(source: Source, limits: Limits | None = None) -> Header:
    """Read and check a header. Blocks on the file; memory stays within a few MiB whatever the file claims.

    Raises:
        GgufError: the file is refused, with a stable code and the offset.
        OSError: the file cannot be read.
    """
    return _HeaderParser(source, limits or Limits()).parse()


def array_items(source: Source, array: ArrayValue, limits: Limits | None = None) -> Iterator[Scalar]:
    """All elements of an array of a checked header, read from the file again as they are asked for.

    Raises:
        GgufError: the file changed since, or the time budget is over.
        OSError: the file cannot be read.
    """
    if array.element_type is not ValueType.STRING and len(array.head) == array.count:
        yield from array.head
        return
    limits = replace(limits or Limits(), kept_total_bytes=sys.maxsize)
    window = Window(source, limits, start=array.offset)
    for _ in range(array.count):
        if array.element_type is ValueType.STRING:
            yield window.string(MAX_STRING_BYTES, "an element")[0]
        else:
            yield window.scalar(array.element_type)


class _HeaderParser:
    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._window = Window(source, limits)
        self._array_elements = 0
        self._array_strings = 0

    def parse(self) -> Header:
        version = self._version()
        tensor_count = self._count("tensors", self._limits.tensors, MIN_TENSOR_BYTES)
        entry_count = self._count("metadata entries", self._limits.metadata_entries, MIN_ENTRY_BYTES)
        metadata = self._metadata(entry_count)
        alignment = self._alignment(metadata)
        tensors = self._tensors(tensor_count, alignment)
        header_size = self._window.offset
        self._window.check_limit(header_size)
        data_offset = _padded(header_size, alignment)
        self._check_data(tensors, data_offset)
        return Header(
            version=version,
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            alignment=alignment,
            header_size=header_size,
            data_offset=data_offset,
            file_size=self._source.size,
            digest=self._digest(data_offset),
            kept_bytes=self._window.kept,
        )

    def _version(self) -> int:
        sniff.check_magic(self._source.read_at(0, sniff.SNIFF_BYTES), self._source.size)
        self._window.skip_magic()
        start = self._window.offset
        version = self._window.u32()
        if version and version & 0xFFFF == 0:
            raise GgufError(
                GgufErrorCode.BIG_ENDIAN,
                "the file is in big-endian byte order, which the engines here cannot read; "
                "convert it with gguf-convert-endian or download the little-endian file",
                offset=start,
            )
        if version not in SUPPORTED_VERSIONS:
            raise GgufError(
                GgufErrorCode.UNSUPPORTED_VERSION,
                f"GGUF version {version} is not supported; versions 2 and 3 are",
                offset=start,
            )
        return version

    def _count(self, what: str, limit: int, least_bytes: int) -> int:
        start = self._window.offset
        count = self._window.u64()
        if count >= 1 << 63:
            raise GgufError(GgufErrorCode.CORRUPT, f"the number of {what} is negative", offset=start)
        if count > limit:
            code = GgufErrorCode.LIMIT_EXCEEDED
            raise GgufError(code, f"the file claims {count} {what}; the limit is {limit}", offset=start)
        if count * least_bytes > self._window.remaining:
            raise GgufError(
                GgufErrorCode.TRUNCATED,
                f"the file claims {count} {what} but has only {self._window.remaining} bytes left: it is incomplete",
                offset=start,
            )
        return count

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            start = self._window.offset
            key, _ = self._window.string(self._limits.key_bytes, "a metadata key")
            if not key:
                raise GgufError(GgufErrorCode.CORRUPT, "a metadata key is empty", offset=start)
            if key in metadata:
                raise GgufError(GgufErrorCode.CORRUPT, f"metadata key {_shown(key)} appears twice", offset=start)
            metadata[key] = self._value(key)
        return metadata

    def _value_type(self, key: str) -> ValueType:
        start = self._window.offset
        type_id = self._window.u32()
        try:
            return ValueType(type_id)
        except ValueError as error:
            message = f"metadata key {_shown(key)} has the unknown value type {type_id}"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=start) from error

    def _value(self, key: str) -> Value:
        start = self._window.offset
        value_type = self._value_type(key)
        if key == ALIGNMENT_KEY and value_type is not ValueType.UINT32:
            raise GgufError(GgufErrorCode.CORRUPT, f"{ALIGNMENT_KEY} is not an unsigned 32-bit number", offset=start)
        if value_type is ValueType.ARRAY:
            return self._array(key)
        if value_type is ValueType.STRING:
            return self._window.string(self._limits.kept_string_bytes, f"metadata value {_shown(key)}")[0]
        return self._window.scalar(value_type)

    def _array(self, key: str) -> ArrayValue:
        start = self._window.offset
        element_type = self._value_type(key)
        count = self._window.u64()
        if element_type is ValueType.ARRAY:
            message = f"metadata key {_shown(key)} is an array of arrays"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
        element_bytes = 8 if element_type is ValueType.STRING else SCALARS[element_type].size
        self._check_array(key, count, element_bytes, start)
        if element_type is ValueType.STRING:
            return self._string_array(key, count)
        whole = count <= self._limits.whole_array
        kept = count if whole else self._limits.array_head
        offset = self._window.offset
        head = self._window.scalars(element_type, kept)
        self._window.skip((count - kept) * element_bytes)
        return ArrayValue(element_type, count, head, offset)

    def _check_array(self, key: str, count: int, element_bytes: int, start: int) -> None:
        if count > MAX_ARRAY_ELEMENTS:
            message = f"array {_shown(key)} claims {count} elements, more than any file may"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
        self._array_elements += count
        if self._array_elements > self._limits.array_elements:
            message = f"the arrays of the header have more than {self._limits.array_elements} elements"
            raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, message, offset=start)
        if count * element_bytes > self._window.remaining:
            message = f"array {_shown(key)} claims {count} elements but the file ends before: it is incomplete"
            raise GgufError(GgufErrorCode.TRUNCATED, message, offset=start)

    def _string_array(self, key: str, count: int) -> ArrayValue:
        kept = min(count, self._limits.array_head)
        self._array_strings += count
        if self._array_strings > self._limits.array_strings:
            message = f"the arrays of the header have more than {self._limits.array_strings} strings"
            raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, message, offset=self._window.offset)
        limit, what = self._limits.kept_string_bytes, f"an element of {_shown(key)}"
        offset = self._window.offset
        head = tuple(self._window.string(limit, what)[0] for _ in range(kept))
        self._window.skip_strings(count - kept)
        return ArrayValue(ValueType.STRING, count, head, offset)

    def _alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            message = f"{ALIGNMENT_KEY} is {alignment}, which is not a power of two"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=self._window.offset)
        return alignment

    def _tensors(self, count: int, alignment: int) -> tuple[TensorInfo, ...]:
        tensors: dict[str, TensorInfo] = {}
        expected = 0
        for _ in range(count):
            start = self._window.offset
            tensor = self._tensor()
            if tensor.name in tensors:
                message = f"tensor {_shown(tensor.name)} appears twice"
                raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
            if tensor.offset != expected:
                message = f"tensor {_shown(tensor.name)} lies at offset {tensor.offset}, expected {expected}"
                raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
            tensors[tensor.name] = tensor
            expected += _padded(tensor.size, alignment)
        return tuple(tensors.values())

    def _tensor(self) -> TensorInfo:
        start = self._window.offset
        name, length = self._window.string(self._limits.key_bytes, "a tensor name")
        if length > MAX_TENSOR_NAME_BYTES:
            message = f"a tensor name has {length} bytes; {MAX_TENSOR_NAME_BYTES} are allowed"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
        start = self._window.offset
        dimensions = self._window.u32()
        if dimensions > MAX_DIMENSIONS:
            message = f"tensor {_shown(name)} has {dimensions} dimensions; {MAX_DIMENSIONS} are allowed"
            raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
        *dims, type_id, offset = self._window.fields(TENSOR_FIELDS[dimensions])
        elements = 1
        for dim in dims:
            # ggml multiplies in this order and refuses the first overflow, whatever a later zero would make of it.
            elements *= dim
            if elements > MAX_ELEMENTS or dim > MAX_ELEMENTS:
                message = f"tensor {_shown(name)} has more elements than 63 bits can count"
                raise GgufError(GgufErrorCode.CORRUPT, message, offset=start)
        size = _tensor_size(name, type_id, dims[0] if dims else 1, elements, start + 4 + 8 * dimensions)
        return TensorInfo(name, tuple(dims), type_id, offset, elements, size)

    def _check_data(self, tensors: tuple[TensorInfo, ...], data_offset: int) -> None:
        end = data_offset + max((tensor.offset + tensor.size for tensor in tensors), default=0)
        if tensors and end > self._source.size:
            raise GgufError(
                GgufErrorCode.TRUNCATED,
                f"the tensors end at byte {end}, but the file has {self._source.size}: "
                f"{end - self._source.size} bytes are missing, the download or copy did not finish",
                offset=self._source.size,
            )

    def _digest(self, data_offset: int) -> bytes:
        """Header bytes alone do not tell two trainings of one model apart: evenly spaced samples of the data do."""
        return self._window.finish(self._samples(data_offset))

    def _samples(self, data_offset: int) -> Iterator[bytes]:
        size = self._source.size
        step = max((size - data_offset - SAMPLE_BYTES) // (SAMPLES - 1), SAMPLE_BYTES)
        for offset in range(data_offset, size, step):
            yield self._source.read_at(offset, SAMPLE_BYTES)
        yield size.to_bytes(8, "little")


def _tensor_size(name: str, type_id: int, row: int, elements: int, offset: int) -> int:
    tensor_type = TENSOR_TYPES.get(type_id)
    if tensor_type is None:
        why = "was removed from ggml: convert the model again" if type_id in REMOVED_TENSOR_TYPES else "is unknown"
        message = f"tensor {_shown(name)} has type {type_id}, which {why}"
        raise GgufError(GgufErrorCode.CORRUPT, message, offset=offset)
    if row % tensor_type.block_elements:
        message = (
            f"tensor {_shown(name)} has rows of {row} elements, not a multiple of "
            f"the {tensor_type.block_elements} of a {tensor_type.label} block"
        )
        raise GgufError(GgufErrorCode.CORRUPT, message, offset=offset)
    return elements // tensor_type.block_elements * tensor_type.block_bytes


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:77] + "...")
