"""What embeddings say of texts: how near they are."""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def cosine(one: Vector, other: Vector) -> float | None:
    """From -1 to 1; None when either is nothing or they have not the same length."""
    if len(one) != len(other) or not one:
        return None
    size = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / size if size else None


def similarities(vectors: Sequence[Vector]) -> list[list[float | None]]:
    """Of each with each."""
    return [[cosine(one, other) for other in vectors] for one in vectors]


def length(vector: Vector) -> float:
    """Its Euclidean norm."""
    return math.sqrt(sum(x * x for x in vector))


def preview(vector: Vector, shown: int = 8) -> str:
    """Its first numbers."""
    first = ", ".join(f"{value:.4f}" for value in vector[:shown])
    return f"[{first}, …]" if len(vector) > shown else f"[{first}]"


def texts_of(given: str) -> list[str]:
    """One text a line."""
    return [line.strip() for line in given.splitlines() if line.strip()]
