"""Limits of keys, exact across gateways: shares in hand, workers that fetch more, local rules while NATS is away."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cortex_contracts import subjects
from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway import metrics
from cortex_gateway.domain import limits
from cortex_gateway.domain.auth import ApiKey
from cortex_gateway.domain.limits import Limit, Need
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.permits import KeyState, Permit
from cortex_gateway.ports import Counters
from cortex_gateway.settlement import Exchange
from cortex_gateway.shares import MeteredShare, Share
from cortex_gateway.stream_share import StreamShare
from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()

WORKERS = 16
UPKEEP_S = 1.0
LOOK_AGAIN_S = 0.1
"""While the counters are out of reach: what is granted meanwhile nobody else knows of."""
FORGET_AFTER_S = 180.0
COUNT_GATEWAYS_S = 10


@dataclass(frozen=True, slots=True)
class LimiterRules:
    """Args: how long a request waits for a share; tokens of an answer whose length the client leaves open; how many
    gateways there are as long as they could not be counted."""

    wait_s: float = 2.0
    default_completion_tokens: int = 256
    assumed_gateways: int = 4


class Limiter:
    """Admits requests of limited keys. `run` must be running for anything beyond the shares in hand."""

    def __init__(self, counters: Counters, clock: Clock, rules: LimiterRules, instance: str) -> None:
        self._counters = counters
        self._clock = clock
        self._rules = rules
        self._instance = instance
        self._states: dict[str, KeyState] = {}
        self._queue: asyncio.Queue[Share] = asyncio.Queue()
        self._gateways = rules.assumed_gateways
        self._counted_epoch = 0
        self._incarnation: str | None = None
        self._verified = False
        self._local = False
        """The counters are out of reach: each request is judged by this gateway alone."""
        self._refused: dict[Limit, Callable[[], None]] = {
            limit: metrics.LIMIT_REFUSALS.labels(limit.value).inc for limit in Limit
        }

    async def admit(self, key: ApiKey, need: Need, *, stream: bool) -> Permit:
        """Take what the request may need of every limit of its key, waiting for a share at most `wait_s`.

        Raises:
            ApiError: 429, nothing was taken.
        """
        now = self._clock.monotonic()
        state = self._state_of(key.document, now)
        units = self._units(state, need)
        permit = Permit(state, self._clock, units, now)
        if self._at_once(state, permit, units, now, stream=stream):
            return permit
        taken: list[tuple[Share, int]] = []
        try:
            for share in (state.streams if stream else None, state.requests, state.tokens, state.budget):
                if share is None:
                    continue
                asked = min(units, share.size) if share.limit in (Limit.TOKENS, Limit.BUDGET) else 1
                at_once = not share.wanted and share.take(asked, now)
                if not at_once and not await self._wait(share, asked):
                    self._refuse(state, share, asked)
                taken.append((share, asked))
                permit.took(share)
        except BaseException:
            for granted, asked in taken:
                granted.undo(asked, now)
            raise
        return permit

    def try_admit(self, key: ApiKey, need: Need, *, stream: bool) -> Permit | None:
        """`admit` when everything is in hand, else None: nothing was taken."""
        now = self._clock.monotonic()
        state = self._state_of(key.document, now)
        units = self._units(state, need)
        permit = Permit(state, self._clock, units, now)
        return permit if self._at_once(state, permit, units, now, stream=stream) else None

    def _at_once(self, state: KeyState, permit: Permit, units: int, now: float, *, stream: bool) -> bool:
        """Take everything from what is in hand, or nothing; the way of most requests."""
        requests, tokens, budget = state.requests, state.tokens, state.budget
        streams = state.streams if stream else None
        if (
            (requests is not None and not requests.ready(1))
            or (tokens is not None and not tokens.ready(units))
            or (budget is not None and not budget.ready(units))
            or (streams is not None and not streams.ready(1))
        ):
            return False
        if requests is not None:
            requests.take(1, now)
        if tokens is not None:
            tokens.take(units, now)
        if budget is not None:
            budget.take(units, now)
        if streams is not None:
            streams.take(1, now)
        permit.took_all(tokens, budget, streams)
        return True

    def observe(self, exchange: Exchange, data: UsageData) -> None:
        """An observer of the bookkeeper: the reservation becomes what was used."""
        if exchange.permit is not None:
            exchange.permit.settle(data.prompt_tokens + data.completion_tokens)

    async def on_reconnect(self) -> None:
        """NATS was away: before the counters are used again it is looked whether they are the same."""
        self._verified = False

    async def run(self) -> None:
        """Fetch shares and keep house; a task of the service."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work_forever())
            group.create_task(self._upkeep_forever())

    async def drained(self, timeout_s: float = 1.0) -> None:
        """Give back what is in hand, as far as the counters answer in time."""
        for state in self._states.values():
            for share in state.shares():
                share.closing = True
                share.give_back(0)
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            log.info("limit_shares_not_returned")

    def _units(self, state: KeyState, need: Need) -> int:
        tokens, budget = state.tokens, state.budget
        if tokens is None and budget is None:
            return 0
        estimate = need.tokens(self._rules.default_completion_tokens)
        if tokens is not None and estimate > tokens.size:
            estimate = tokens.size
        return budget.size if budget is not None and estimate > budget.size else estimate

    async def _wait(self, share: Share, units: int) -> bool:
        if share.hopeless(units, self._clock.monotonic()):
            return False
        if self._local:
            return share.take_locally(units, self._clock.monotonic(), self._gateways)
        metrics.LIMIT_WAITS.inc()
        future = share.wait(units)
        try:
            async with asyncio.timeout(self._rules.wait_s):
                return await asyncio.shield(future)
        except TimeoutError:
            future.cancel()
            return share.take_locally(units, self._clock.monotonic(), self._gateways)
        except asyncio.CancelledError:
            if not future.cancel() and future.result():
                share.undo(units, self._clock.monotonic())
            raise

    def _refuse(self, state: KeyState, share: Share, asked: int) -> None:
        now, today = self._clock.monotonic(), self._clock.now()
        self._refused[share.limit]()
        left = limits.month_left(today)
        standing = share.standing(now, left)
        retry_s = left if share.limit is Limit.BUDGET else max(0.001, share.retry_at - now)
        raise limits.refusal(share.limit, standing, asked, retry_s, state.headers(now))

    def _state_of(self, document: KeyDocumentV1, now: float) -> KeyState:
        state = self._states.get(document.id)
        if state is None:
            state = self._states[document.id] = KeyState(document)
            self._configure(state, document)
        elif state.document is not document:
            self._configure(state, document)
        state.used_at = now
        return state

    def _configure(self, state: KeyState, document: KeyDocumentV1) -> None:
        """Bring the shares to what the key says now."""
        state.document = document
        key = document.id
        state.requests = self._metered(
            state.requests, Limit.REQUESTS, document.requests_per_minute, subjects.request_counter(key)
        )
        state.tokens = self._metered(
            state.tokens, Limit.TOKENS, document.tokens_per_minute, subjects.token_counter(key)
        )
        month = limits.month_of(self._clock.now())
        if state.budget is not None and state.month != month:
            state.budget.give_back(0)
            state.retired = [*(share for share in state.retired if share.owed), state.budget]
            state.budget = None
        state.month = month
        state.budget = self._metered(
            state.budget, Limit.BUDGET, document.tokens_per_month, subjects.budget_counter(key, month)
        )
        size = document.max_concurrent_streams
        if size is None:
            state.streams = None
        elif state.streams is None:
            state.streams = StreamShare(size, lambda epoch: subjects.stream_counter(key, epoch), self._queue.put_nowait)
        elif state.streams.size != size:
            state.streams.resize(size)

    def _metered(self, share: MeteredShare | None, limit: Limit, size: int | None, subject: str) -> MeteredShare | None:
        if size is None:
            if share is not None:
                share.give_back(0)
            return None
        if share is None:
            return MeteredShare(limit, size, subject, self._queue.put_nowait)
        if share.size != size:
            share.resize(size)
        return share

    async def _work_forever(self) -> None:
        while True:
            share = await self._queue.get()
            try:
                await self._work(share)
            finally:
                share.queued = False
                self._queue.task_done()
            if share.wanted:
                share.enqueue()

    async def _work(self, share: Share) -> None:
        if not self._local:
            try:
                if not self._verified:
                    await self._verify()
                await share.work(self._counters, self._clock, self._gateways)
            except TransientError as error:
                self._away(error)
            else:
                return
        share.serve_locally(self._clock.monotonic(), self._gateways)

    async def _verify(self) -> None:
        """Look whether the counters are those of before; if not, tell the new ones what was used here.

        Raises:
            TransientError: there are none, or NATS is away.
        """
        incarnation = await self._counters.incarnation()
        known, self._incarnation = self._incarnation, incarnation
        self._verified = True
        if known is not None and known != incarnation:
            log.warning("limit_counters_lost")
            metrics.LIMIT_COUNTERS_LOST.inc()
            now = self._clock.monotonic()
            for state in self._states.values():
                for share in (state.requests, state.tokens, state.streams):
                    if share is not None:
                        share.forget_counter(now, self._gateways)

    def _away(self, error: TransientError) -> None:
        if not self._local:
            self._local = True
            log.warning("limits_local", reason=str(error), gateways=self._gateways)
            metrics.LIMIT_LOCAL.set(1)

    async def _upkeep_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S if self._local else UPKEEP_S)
            await self._look()
            self._tidy(self._clock.monotonic())

    async def _look(self) -> None:
        """Count the gateways, and notice when the counters are within reach again."""
        try:
            if self._local or not self._verified:
                await self._verify()
            await self._count_gateways()
        except TransientError as error:
            self._away(error)
            return
        if self._local:
            self._local = False
            metrics.LIMIT_LOCAL.set(0)
            log.info("limits_shared_again", gateways=self._gateways)
            for state in self._states.values():
                for share in state.shares():
                    share.enqueue()

    async def _count_gateways(self) -> None:
        """Each gateway counts itself once in each epoch; how many did so in the last one is how many there are."""
        epoch = int(self._clock.now().timestamp()) // COUNT_GATEWAYS_S
        if epoch == self._counted_epoch:
            return
        operation = f"{self._instance}-{epoch}"
        present = await self._counters.add(subjects.gateway_counter(epoch), 1, operation)
        previous = await self._counters.last(subjects.gateway_counter(epoch - 1))
        self._gateways = max(present, self._gateways if previous is None else previous)
        self._counted_epoch = epoch

    def _tidy(self, now: float) -> None:
        month = limits.month_of(self._clock.now())
        for key, state in list(self._states.items()):
            if now - state.used_at > FORGET_AFTER_S and not any(share.busy for share in state.shares()):
                del self._states[key]
                continue
            if state.month != month:
                self._configure(state, state.document)
            for share in (state.requests, state.tokens, state.budget, state.streams):
                if share is not None:
                    share.idle(now)
