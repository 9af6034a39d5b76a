"""What a quantization means, in a few words, and which one to take. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

SMALL_MODEL = 3_000_000_000
"""Parameters below which four bits hurt noticeably."""

QUALITY: Mapping[str, str] = MappingProxyType(
    {
        "F32": "full precision, no better than BF16",
        "F16": "unquantized",
        "BF16": "unquantized",
        "Q8_0": "practically lossless",
        "Q6_K": "very close to the original",
        "Q5_K_M": "small loss",
        "Q5_K_S": "small loss",
        "Q5_1": "small loss, older format",
        "Q5_0": "small loss, older format",
        "Q4_K_M": "good balance of quality and size",
        "Q4_K_S": "a little below Q4_K_M",
        "IQ4_XS": "small for its quality, slower on CPU",
        "IQ4_NL": "like Q4_K_S",
        "Q4_1": "older format, Q4_K_M is better",
        "Q4_0": "older format, fast on ARM, Q4_K_M is better",
        "Q3_K_L": "noticeable loss",
        "Q3_K_M": "noticeable loss",
        "Q3_K_S": "high loss",
        "IQ3_M": "noticeable loss",
        "IQ3_S": "high loss",
        "IQ3_XS": "high loss",
        "IQ3_XXS": "high loss",
        "Q2_K": "very high loss, only for lack of memory",
        "Q2_K_S": "very high loss, only for lack of memory",
        "IQ2_M": "very high loss, only for lack of memory",
        "IQ2_S": "very high loss, only for lack of memory",
        "IQ2_XS": "extreme loss",
        "IQ2_XXS": "extreme loss",
        "IQ1_M": "extreme loss",
        "IQ1_S": "extreme loss",
        "MXFP4_MOE": "the model's own format, nothing lost",
        "MXFP4": "the model's own format, nothing lost",
        "NVFP4": "four-bit floats, good on recent NVIDIA GPUs",
    }
)

_LARGE_FIRST: Sequence[str] = (
    *(
        "MXFP4_MOE",
        "MXFP4",
        "Q4_K_M",
        "Q5_K_M",
        "Q4_K_S",
        "IQ4_XS",
        "IQ4_NL",
        "Q5_K_S",
        "Q6_K",
        "NVFP4",
        "Q4_1",
        "Q5_1",
    ),
    *("Q4_0", "Q5_0", "Q8_0", "Q3_K_L", "IQ3_M", "Q3_K_M", "BF16", "F16", "IQ3_S", "IQ3_XS", "Q3_K_S", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "Q2_K_S", "IQ2_S", "F32", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
)
_SMALL_FIRST: Sequence[str] = ("MXFP4_MOE", "MXFP4", "Q8_0", "Q6_K", "Q5_K_M", "BF16", "F16")


def quality(label: str | None) -> str:
    """A few words; empty for a quantization nobody has words for."""
    return QUALITY.get(label or "", "")


def preference(label: str | None, parameters: int | None) -> int:
    """Rank of a quantization when several are there and memory is not known; smaller is better."""
    order = list(_LARGE_FIRST)
    if parameters is not None and parameters < SMALL_MODEL:
        order = [*_SMALL_FIRST, *(name for name in _LARGE_FIRST if name not in _SMALL_FIRST)]
    return order.index(label) if label in order else len(order)


def why_recommended(label: str | None, parameters: int | None) -> str:
    """Why this quantization is the one to take."""
    said = quality(label) or "the best that is there"
    if label in ("MXFP4_MOE", "MXFP4"):
        return f"{label}: {said}; other quantizations only convert it"
    if parameters is not None and parameters < SMALL_MODEL and label in _SMALL_FIRST:
        return f"{label}: {said}; a model this small loses much with fewer bits, and needs little memory anyway"
    return f"{label}: {said}"
