"""What webhooks need of the world. Every method raises DatabaseUnavailableError when Postgres does not answer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.webhooks import AfterFailure, Attempt, Delivery, DeliveryStatus, Webhook
from cortex_registry.ports import Act


@dataclass(frozen=True, slots=True)
class Job:
    """A delivery that is to be tried now. `event` is None when it has left the log."""

    delivery: Delivery
    webhook: Webhook
    event: LoggedEvent | None


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the log: above `after`, up to `until`."""

    after: int
    until: int
    only_failed: bool
    limit: int


class WebhookRepository(Protocol):
    """Webhooks and their deliveries."""

    async def find(self, webhook_id: str) -> Webhook | None: ...

    async def list_all(self, after: str | None, limit: int) -> Sequence[Webhook]:
        """Oldest first, behind the id given."""
        ...

    async def add(self, webhook: Webhook, act: Act) -> None:
        """Store with audit entry and event; it gets events from now on."""
        ...

    async def replace(self, webhook: Webhook, act: Act, *, resumed: bool) -> bool:
        """Store the next version; False when somebody else stored that version first.

        A webhook that is switched off loses what waits for it; one that is switched on again (`resumed`) gets events
        from now on.
        """
        ...

    async def remove(self, webhook: Webhook, act: Act) -> bool:
        """Delete with all deliveries, if the row still has its version."""
        ...

    async def deliveries(
        self, webhook_id: str, status: DeliveryStatus | None, after: int | None, limit: int
    ) -> Sequence[Delivery]:
        """Newest first, behind the id given."""
        ...

    async def delivery(self, webhook_id: str, delivery_id: int) -> tuple[Delivery, Sequence[Attempt]] | None:
        """One delivery with its last attempts."""
        ...

    async def redeliver(self, delivery: Delivery) -> Delivery | None:
        """Queue the same event once more; None when it has left the log."""
        ...

    async def redeliver_span(self, webhook: Webhook, span: Span) -> int:
        """Queue every event of a range that the webhook wants; returns how many."""
        ...

    async def record_test(self, webhook_id: str, event_id: str, attempt: Attempt) -> None:
        """Put a test into the delivery log."""
        ...


class WebhookQueue(Protocol):
    """What the dispatcher works on: one connection that holds, or waits for, the dispatcher's lock."""

    async def lead(self) -> bool:
        """Try to become the one dispatcher; the lock goes when the session ends."""
        ...

    async def plan(self, max_pending: int) -> int:
        """Make deliveries of new events, a bounded number; returns how many webhooks moved on."""
        ...

    async def claim(self, used: Mapping[str, int], *, per_webhook: int, limit: int, lease_s: float) -> Sequence[Job]:
        """Take deliveries that are due, oldest first; nobody else takes them before the lease ends."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when a commit hinted at work, or after `timeout`."""
        ...

    def wake(self) -> None:
        """End `wait`."""
        ...


class WebhookResults(Protocol):
    """Where the dispatcher writes what came of a job."""

    async def succeeded(self, job: Job, attempt: Attempt) -> None: ...

    async def failed(self, job: Job, attempt: Attempt, decision: AfterFailure) -> Webhook | None:
        """Returns the webhook's state after it when it may have to be switched off."""
        ...

    async def abandoned(self, job: Job, reason: str) -> None:
        """The delivery is cancelled."""
        ...

    async def disable(self, webhook_id: str, reason: str) -> bool:
        """Switch a webhook off, with audit entry and event; False when it is off already."""
        ...

    async def prune(self, finished_before: datetime, limit: int) -> int:
        """Forget finished deliveries."""
        ...


class WebhookQueueSource(Protocol):
    """Gives sessions."""

    def open(self) -> AbstractAsyncContextManager[WebhookQueue]: ...


class Sender(Protocol):
    """Sends one request."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """POST within the deadline, without following redirects. Failures are in the attempt; raises nothing."""
        ...
