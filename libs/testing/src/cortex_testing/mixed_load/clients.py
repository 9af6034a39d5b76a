"""Clients that ask, wait, think, ask again, and note how each request ended."""

import asyncio
import time
from dataclasses import replace

import anthropic
import httpx2
import openai

from cortex_testing.mixed_load.callers import HANG_S, Caller, Callers
from cortex_testing.mixed_load.kinds import KINDS, LooksWholeError
from cortex_testing.mixed_load.ledger import End, Ledger, Seen
from cortex_testing.mixed_load.streams import code_of

AGAIN_S = 0.5
"""After a refusal, before anything else is asked."""


async def ask_on(callers: Callers, ledger: Ledger, until: float, think_s: float) -> None:
    """One client, until the event loop's time says that it is over."""
    loop = asyncio.get_running_loop()
    names, weights = list(KINDS), [kind.weight for kind in KINDS.values()]
    while loop.time() < until:
        [kind] = callers.random.choices(names, weights)
        url = callers.random.choice(callers.gateways)
        seen = await ask(callers, callers.at(url, kind), ledger)
        if seen is not None and seen.end is End.UNREACHED:
            seen = await ask(callers, callers.at(callers.other(url), kind), ledger)
        refused = seen is None or seen.end in (End.REFUSED, End.UNREACHED)
        await asyncio.sleep(callers.random.uniform(0, 2 * think_s) + AGAIN_S * refused)


async def ask(callers: Callers, caller: Caller, ledger: Ledger) -> Seen | None:
    """One request, noted; None when something happened that must not."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(HANG_S):
            seen = await _try(callers, caller)
    except TimeoutError:
        ledger.faults.append(f"{caller.kind}: hung for {HANG_S:.0f} s at {caller.url}")
    except (LooksWholeError, ValueError, KeyError) as error:
        ledger.faults.append(f"{caller.kind}: {error!r}")
    except (httpx2.TransportError, openai.APIConnectionError, anthropic.APIConnectionError) as error:
        ledger.faults.append(f"{caller.kind}: cut off after {time.monotonic() - began:.1f} s: {_root(error)!r}")
    else:
        ledger.seen.append(replace(seen, took_s=time.monotonic() - began))
        return seen
    return None


async def _try(callers: Callers, caller: Caller) -> Seen:
    try:
        return await KINDS[caller.kind].act(callers, caller)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return _refusal(caller, error)
    except (httpx2.ConnectError, openai.APIConnectionError, anthropic.APIConnectionError) as error:
        if isinstance(_root(error), httpx2.ConnectError):
            return Seen(caller.kind, End.UNREACHED)
        raise


def _refusal(caller: Caller, error: openai.APIStatusError | anthropic.APIStatusError) -> Seen:
    """Raises LooksWholeError when the client could make nothing of the refusal."""
    told, code = error.response.headers, code_of(error.response.content)
    if not error.message or "x-cortex-error-origin" not in told:
        raise LooksWholeError(f"{caller.kind}: {error.status_code} {error.response.text}")
    if error.status_code == 429 and "retry-after" not in told:
        raise LooksWholeError(f"{caller.kind}: 429 without Retry-After")
    return Seen(caller.kind, End.REFUSED, error.status_code, code=code)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None and isinstance(error, openai.APIConnectionError | anthropic.APIConnectionError):
        error = error.__cause__
    return error
