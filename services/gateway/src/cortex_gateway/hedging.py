"""A second attempt beside a slow one; the first answer wins, the other is cancelled and never seen."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cortex_gateway.attempts import Answer
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.metrics import HEDGES

Attempt = Coroutine[Any, Any, Answer | None]


async def race(first: Attempt, second: Callable[[], Attempt | None], delay_s: float) -> Answer | None:
    """The answer that begins first. `second` is asked after `delay_s` and may decline.

    Raises:
        ApiError: of the first attempt, when no attempt gave an answer.
    """
    tasks = [asyncio.ensure_future(first)]
    winner: Answer | None = None
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay_s)
        other = None if done else second()
        if other is not None:
            HEDGES.labels("sent").inc()
            tasks.append(asyncio.ensure_future(other))
        winner = await _first_answer(tasks)
        if winner is not None and len(tasks) > 1:
            HEDGES.labels("won" if _answer_of(tasks[1]) is winner else "lost").inc()
        return winner
    finally:
        await _dismiss(tasks, winner)


async def _first_answer(tasks: "Sequence[asyncio.Task[Answer | None]]") -> Answer | None:
    pending = set(tasks)
    failures: list[ApiError] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task not in done:
                continue
            try:
                answer = task.result()
            except ApiError as error:
                failures.append(error)
                continue
            if answer is not None:
                return answer
    if failures:
        raise failures[0]
    return None


def _answer_of(task: "asyncio.Task[Answer | None]") -> Answer | None:
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


async def _dismiss(tasks: "Sequence[asyncio.Task[Answer | None]]", winner: Answer | None) -> None:
    """End whatever is left of the others."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        answer = _answer_of(task)
        if answer is not None and answer is not winner:
            answer.close()
