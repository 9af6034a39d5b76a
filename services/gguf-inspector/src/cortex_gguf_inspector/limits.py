"""How much of a hostile file the reader is willing to look at."""

from dataclasses import dataclass

MIB = 1024 * 1024

MAX_STRING_BYTES = 1 << 30
"""The format's own bound (ggml): a longer string is a broken file, not a big one."""
MAX_ARRAY_ELEMENTS = 1 << 30
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = (1 << 63) - 1
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds tighter than the format's; exceeding one is `gguf_limit_exceeded`, never a crash or a full memory."""

    metadata_entries: int = 65_536
    tensors: int = 65_536
    header_bytes: int = 256 * MIB
    array_elements: int = 16_000_000
    """Elements of all arrays of one file together."""
    array_strings: int = 2_000_000
    """Strings in all arrays of one file together: each must be walked over, so this bounds the time. The largest
    vocabulary known, with its merges, has below 1,000,000."""
    key_bytes: int = 65_535
    kept_string_bytes: int = MIB
    """Longest metadata string outside arrays (chat templates are long)."""
    kept_total_bytes: int = 16 * MIB
    """Memory of the keys, strings, tensor names and short arrays of one file together."""
    array_head: int = 32
    """Elements kept of an array; the rest is walked over."""
    whole_array: int = 4_096
    """Arrays of numbers up to this length are kept whole (per-layer head counts)."""
    split_parts: int = 1_024
    folder_entries: int = 10_000
    time_budget_s: float = 5.0
