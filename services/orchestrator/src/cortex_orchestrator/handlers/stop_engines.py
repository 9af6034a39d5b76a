"""Stop and remove every engine of this node, without NATS: `python -m cortex_orchestrator stop-engines`."""

import asyncio
from collections.abc import Callable

from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.spec import StopPolicy
from cortex_orchestrator.ports import EngineRuntime


async def stop_engines(runtime: EngineRuntime, deadline_s: float, tell: Callable[[str], None]) -> bool:
    """Stop all at once, each killed after `deadline_s` at the latest; True when none is left.

    Raises:
        TransientError: the runtime is unreachable.
    """
    owned = await runtime.list_owned()
    if not owned:
        tell("no engines")
        return True
    results = await asyncio.gather(*(_stop_one(runtime, seen, deadline_s, tell) for seen in owned))
    return all(results)


async def _stop_one(runtime: EngineRuntime, seen: Observed, deadline_s: float, tell: Callable[[str], None]) -> bool:
    policy = ENGINES[seen.identity.engine_type].stop_policy(seen.identity.stop_timeout_s)
    bounded = StopPolicy(
        deadline_s=min(deadline_s, policy.deadline_s),
        second_term_s=None if policy.second_term_s is None else min(deadline_s / 2, policy.second_term_s),
    )
    try:
        if seen.phase is Phase.RUNNING:
            end = await runtime.stop(seen.replica_id, bounded)
            tell(f"stopped {seen.container} (exit code {end.code})")
        await runtime.remove(seen.replica_id)
    except (DomainError, TransientError) as error:
        tell(f"could not remove {seen.container}: {error}")
        return False
    tell(f"removed {seen.container}")
    return True
