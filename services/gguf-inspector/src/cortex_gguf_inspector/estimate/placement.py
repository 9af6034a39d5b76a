"""Which layer lies on which device, as llama.cpp decides it."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

CPU = 0
"""Device 0 is the CPU; the others count from 1."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of every layer id (the output is the last) and of the caches of each block."""

    homes: tuple[int, ...]
    caches: tuple[int, ...]

    def layers_on(self, device: int) -> int:
        """How many layers, the output counted as one."""
        return sum(1 for home in self.homes if home == device)


def place(
    block_count: int, ngl: int, shares: Sequence[float], *, caches_on_cpu: bool = False, main: int | None = None
) -> Placement:
    """Place `block_count` blocks and the output; `ngl` of them, from the end, on the devices by their `shares`.

    `main` puts all of them on one device (split mode none). Without devices all stay on the CPU.
    """
    layers = block_count + 1
    total = sum(shares)
    if not shares or total <= 0:
        return Placement((CPU,) * layers, (CPU,) * block_count)
    start = max(layers - ngl, 0)
    active = min(ngl, layers)
    ends = list(itertools.accumulate(share / total for share in shares))
    homes = [CPU] * start
    for layer in range(start, layers):
        if main is not None:
            homes.append(main + 1)
            continue
        found = bisect.bisect_right(ends, (layer - start) / active)
        homes.append(min(found, len(shares) - 1) + 1)
    caches = (CPU,) * block_count if caches_on_cpu else tuple(homes[:block_count])
    return Placement(tuple(homes), caches)
