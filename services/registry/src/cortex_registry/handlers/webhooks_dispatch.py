"""Delivers events to webhooks. One registry at a time does; a request that it had not marked is sent again by the next.

A delivery that fails is tried again after growing waits, about a day long. An endpoint that is down (no answer, or an
answer that says so) is paused as a whole and probed with one request at a time, so that it costs others nothing.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cortex_kit.clock import Clock
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.webhooks import Attempt, Webhook, after_failure
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.handlers.webhooks import Signer
from cortex_registry.handlers.webhooks_ports import Job, Sender, WebhookQueue, WebhookQueueSource, WebhookResults

log = get_logger()
LOCK_POLL_S = 1.0
POLL_S = 0.5
RETRY_S = 0.5
PRUNE_EVERY_S = 3600.0
PRUNE_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """How much at once, how patiently."""

    timeout_s: float = 10.0
    per_webhook: int = 4
    in_flight: int = 64
    max_pending: int = 10_000
    retry_base_s: float = 5.0
    disable_after: timedelta = timedelta(days=5)
    keep: timedelta = timedelta(days=14)

    @property
    def lease_s(self) -> float:
        """How long a delivery belongs to the dispatcher that took it: longer than a request can last."""
        return 2 * self.timeout_s + 5


class Dispatcher:
    """`run` is a task of every instance; one of them at a time is active."""

    def __init__(
        self,
        source: WebhookQueueSource,
        results: WebhookResults,
        sender: Sender,
        signer: Signer,
        *,
        clock: Clock,
        rules: DispatchRules,
    ) -> None:
        self._source = source
        self._results = results
        self._sender = sender
        self._signer = signer
        self._clock = clock
        self._rules = rules
        self._used: Counter[str] = Counter()
        self._prune_at = 0.0

    async def run(self) -> None:
        """Deliver until cancelled, with or without Postgres."""
        while True:
            try:
                async with self._source.open() as queue:
                    await self._serve(queue)
            except DatabaseUnavailableError as error:
                log.info("webhooks_wait_for_database", reason=error.message)
            finally:
                metrics.WEBHOOK_DISPATCHER.set(0)
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))

    async def _serve(self, queue: WebhookQueue) -> None:
        while not await queue.lead():
            await queue.wait(LOCK_POLL_S)
            await asyncio.sleep(LOCK_POLL_S * random.uniform(0.5, 1.0))
        metrics.WEBHOOK_DISPATCHER.set(1)
        log.info("webhook_dispatcher_leading")
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._step(queue, running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._used.clear()

    async def _step(self, queue: WebhookQueue, running: set[asyncio.Task[None]]) -> None:
        planned = await queue.plan(self._rules.max_pending)
        room = self._rules.in_flight - len(running)
        jobs: Sequence[Job] = ()
        if room > 0:
            jobs = await queue.claim(
                self._used, per_webhook=self._rules.per_webhook, limit=room, lease_s=self._rules.lease_s
            )
        for job in jobs:
            self._used[job.webhook.id] += 1
            task = asyncio.create_task(self._deliver(job, queue), name=f"webhook-{job.delivery.id}")
            running.add(task)
            task.add_done_callback(running.discard)
        await self._prune()
        if not jobs and not planned:
            await queue.wait(POLL_S)
        else:
            await asyncio.sleep(0)

    async def _deliver(self, job: Job, queue: WebhookQueue) -> None:
        try:
            await self._attempt(job)
        except TransientError as error:
            # Not marked: it is sent again when its lease ends.
            log.warning("webhook_result_not_stored", delivery_id=job.delivery.id, reason=str(error))
        except Exception:
            # The boundary of one delivery: a bug in it must neither end the dispatcher nor be silent.
            log.exception("webhook_delivery_crashed", delivery_id=job.delivery.id)
        finally:
            self._used[job.webhook.id] -= 1
            if self._used[job.webhook.id] <= 0:
                del self._used[job.webhook.id]
            queue.wake()

    async def _attempt(self, job: Job) -> None:
        if job.event is None:
            await self._results.abandoned(job, "the event has left the log")
            return
        body = json.dumps(job.event.cloud_event(), ensure_ascii=False, separators=(",", ":")).encode()
        try:
            headers = self._signer.headers(job.webhook, job.event.event_id, body)
        except PermanentError as error:
            attempt = Attempt(self._clock.now(), None, 0.0, str(error))
        else:
            attempt = await self._sender.send(job.webhook.url, headers, body)
        metrics.WEBHOOK_SECONDS.observe(attempt.duration_ms / 1000)
        metrics.WEBHOOK_ATTEMPTS.labels("delivered" if attempt.delivered else "failed").inc()
        if attempt.delivered:
            await self._results.succeeded(job, attempt)
        else:
            await self._failed(job, attempt)

    async def _failed(self, job: Job, attempt: Attempt) -> None:
        decision = after_failure(
            attempt,
            attempts=job.delivery.attempts + 1,
            failures=job.webhook.health.failures + 1,
            base_s=self._rules.retry_base_s,
            dice=random.random(),
        )
        webhook = await self._results.failed(job, attempt, decision)
        log.info(
            "webhook_failed",
            webhook_id=job.webhook.id,
            delivery_id=job.delivery.id,
            attempt=job.delivery.attempts + 1,
            status=attempt.status,
            error=attempt.error,
            retry_s=decision.retry_s,
        )
        if webhook is None:
            return
        reason = self._hopeless(webhook, gone=decision.gone)
        if reason is not None and await self._results.disable(webhook.id, reason):
            log.warning("webhook_disabled", webhook_id=webhook.id, reason=reason)

    def _hopeless(self, webhook: Webhook, *, gone: bool) -> str | None:
        if gone:
            return "The endpoint answered 410 Gone: it wants nothing more."
        since = webhook.health.failing_since
        if since is None or self._clock.now() - since < self._rules.disable_after:
            return None
        days = self._rules.disable_after / timedelta(days=1)
        return f"Nothing could be delivered for {days:g} days. The last error: {webhook.health.last_error}"[:512]

    async def _prune(self) -> None:
        if self._clock.monotonic() < self._prune_at:
            return
        self._prune_at = self._clock.monotonic() + PRUNE_EVERY_S
        deleted = await self._results.prune(self._clock.now() - self._rules.keep, PRUNE_CHUNK)
        if deleted == PRUNE_CHUNK:
            self._prune_at = 0.0  # more of them: a chunk with each step
