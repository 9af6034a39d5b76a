"""What fits: the largest context, the most layers on the devices, a tensor split. Pure.

Every answer was estimated itself and fits by that estimate; where memory is not known, nothing is proposed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import ProposalV1
from cortex_gguf_inspector.estimate.caches import PADDING
from cortex_gguf_inspector.estimate.llamacpp import ALL_LAYERS, Estimate, Setup, estimate, resolve, tensor_shares
from cortex_gguf_inspector.estimate.placement import CPU

MAX_SPLIT_MOVES = 48


def with_options(setup: Setup, **changes: Any) -> Setup:
    """The same setup with other options."""
    options = LlamaCppOptions.model_validate(setup.options.model_dump() | changes)
    return replace(setup, options=options)


def fits(found: Estimate) -> bool:
    """Fits for certain: at least one device's memory is known and none that is known is too small."""
    answers = [memory.fits for memory in found.devices]
    return found.unknown is None and False not in answers and True in answers


def largest(low: int, high: int, good: Callable[[int], bool]) -> int | None:
    """The largest good number in low..high, when goodness ends somewhere; None when `low` is bad."""
    if high < low or not good(low):
        return None
    if good(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if good(middle):
            low = middle
        else:
            high = middle
    return low


def largest_context(setup: Setup) -> int | None:
    """Most tokens (over all slots) that fit, up to what the model was trained for; 0 when none do.

    None when it cannot be said: nothing is known of the memory or of the architecture.
    """
    first = estimate(setup)
    if first.unknown is not None or all(memory.fits is None for memory in first.devices):
        return None
    cache = resolve(setup).cache
    step = PADDING * cache.streams
    trained = max(setup.facts.context_length, PADDING) * cache.streams
    found = largest(
        1, max(trained // step, 1), lambda steps: fits(estimate(with_options(setup, context_size=steps * step)))
    )
    return (found or 0) * step


def best_ngl(setup: Setup) -> int | None:
    """Most layers (the output counted) on the devices that leave room everywhere; None when none fits."""
    layers = setup.facts.block_count + 1
    if not setup.devices:
        return 0 if fits(estimate(with_options(setup, ngl=0))) else None

    def devices_fit(ngl: int) -> bool:
        found = estimate(with_options(setup, ngl=ngl))
        return found.unknown is None and all(memory.fits is not False for memory in found.devices[1:])

    found = largest(0, layers, devices_fit)
    if found is None or not fits(estimate(with_options(setup, ngl=found))):
        return None
    return found


def propose_split(setup: Setup) -> str | None:
    """Layers per device (a tensor split) that fit; None when there is one device or no split fits."""
    count = len(setup.devices)
    ngl = ALL_LAYERS if setup.options.ngl is None else setup.options.ngl
    layers = min(ngl, setup.facts.block_count + 1)
    if count < 2 or layers < 1:
        return None
    counts = _shared_out(layers, tensor_shares(None, setup.devices))
    seen: set[tuple[int, ...]] = set()
    for _ in range(MAX_SPLIT_MOVES):
        found = estimate(with_options(setup, tensor_split=_text(counts)))
        if fits(found):
            return _text(counts)
        seen.add(tuple(counts))
        room = [(memory.free or 0) - memory.total for memory in found.devices[1:]]
        worst, best = room.index(min(room)), room.index(max(room))
        if room[worst] >= 0 or worst == best or counts[worst] == 0:
            return None
        counts[worst] -= 1
        counts[best] += 1
        if tuple(counts) in seen:
            return None
    return None


def _shared_out(layers: int, shares: Sequence[float]) -> list[int]:
    total = sum(shares) or float(len(shares))
    counts = [int(layers * share / total) for share in shares]
    for index in range(layers - sum(counts)):
        counts[index % len(counts)] += 1
    return counts


def _text(counts: Sequence[int]) -> str:
    return ",".join(str(count) for count in counts)


def proposals(setup: Setup, current: Estimate, context: int | None) -> list[ProposalV1]:
    """Settings that would fit where the present ones do not, or that use the devices better."""
    if current.unknown is not None:
        return []
    found: list[ProposalV1] = []
    if current.fits is False and context:
        found.append(
            ProposalV1(setting="context_size", value=context, reason="the largest context that fits with these options")
        )
    if setup.devices and (current.fits is False or CPU in current.resolved.placement.homes):
        found += _placement_proposals(setup, current)
    return found


def _placement_proposals(setup: Setup, current: Estimate) -> list[ProposalV1]:
    split = propose_split(with_options(setup, ngl=setup.facts.block_count + 1))
    if split is not None:
        reason = "with this split every layer fits on the devices"
        whole = ProposalV1(setting="ngl", value=setup.facts.block_count + 1, reason="all layers fit on the devices")
        return [whole, ProposalV1(setting="tensor_split", value=split, reason=reason)]
    ngl = best_ngl(setup)
    placed = sum(1 for home in current.resolved.placement.homes if home != CPU)
    if ngl is None or (ngl == placed and current.fits is not False):
        return []
    reason = f"the most layers of {setup.facts.block_count + 1} that fit on the devices; the others stay on the CPU"
    if ngl == setup.facts.block_count + 1:
        reason = "all layers fit on the devices"
    return [ProposalV1(setting="ngl", value=ngl, reason=reason)]
