"""What an administrator does with webhooks: load, decide, save."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import JsonValue, SecretStr

from cortex_contracts.events import Event, WebhookCreatedV1, WebhookDeletedV1, WebhookUpdatedV1
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_kit.secrets import seal, unseal
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.domain.webhooks import (
    SECRET_BYTES,
    TEST_TYPE,
    Attempt,
    Delivery,
    DeliveryStatus,
    Webhook,
    WebhookPatch,
    WebhookSpecification,
    encode_secret,
    shown_url,
    signature_header,
)
from cortex_registry.handlers.webhooks_ports import Sender, Span, WebhookRepository
from cortex_registry.ports import Act

log = get_logger()
CONFLICT_ATTEMPTS = 5
MAX_SPAN = 10_000
BODY_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Keys:
    """What seals the secrets."""

    secret_key: SecretStr
    old: tuple[SecretStr, ...] = ()


class Signer:
    """Makes the headers of a request."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def headers(self, webhook: Webhook, message_id: str, body: bytes) -> dict[str, str]:
        """Signed at this moment with every secret that counts now.

        Raises:
            PermanentError: a secret does not open with the keys of the settings.
        """
        now = self._clock.now()
        plain = [unseal(self._keys.secret_key, sealed, self._keys.old) for sealed in webhook.sealed_secrets(now)]
        timestamp = int(now.timestamp())
        return {
            "Content-Type": BODY_TYPE,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_header(plain, message_id, timestamp, body),
        }


class WebhookService:
    """Commands and queries on webhooks. Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self, webhooks: WebhookRepository, sender: Sender, signer: Signer, *, keys: Keys, clock: Clock
    ) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._signer = signer
        self._keys = keys
        self._clock = clock

    async def create(self, wanted: WebhookSpecification, caller: Caller) -> tuple[Webhook, str]:
        """Store a new webhook; returns its secret, which is shown here only. It gets events from now on."""
        now, secret = self._clock.now(), _new_secret()
        webhook = Webhook(
            id=uuid7(),
            version=1,
            name=wanted.name,
            url=wanted.url,
            events=wanted.events,
            enabled=wanted.enabled,
            disabled_reason=None,
            secret_sealed=seal(self._keys.secret_key, secret),
            previous_secret_sealed=None,
            previous_until=None,
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
        )
        event = WebhookCreatedV1(id=webhook.id, name=webhook.name)
        await self._webhooks.add(webhook, Act(caller, "webhook.create", event, after=_described(webhook)))
        log.info("webhook_created", webhook_id=webhook.id, url=shown_url(webhook.url))
        return await self.get(webhook.id), secret

    async def list_all(self, after: str | None, limit: int) -> Sequence[Webhook]:
        return await self._webhooks.list_all(after, limit)

    async def get(self, webhook_id: str) -> Webhook:
        """Raises DomainError 404 `webhook_not_found`."""
        webhook = await self._webhooks.find(webhook_id)
        if webhook is None:
            message = f"There is no webhook {webhook_id[:64]!r}. List them with GET /admin/webhooks."
            raise DomainError("webhook_not_found", message, status=404)
        return webhook

    async def update(self, webhook_id: str, patch: WebhookPatch, expected: Expected, caller: Caller) -> Webhook:
        """Replace the given fields."""
        given = {name: value for name, value in patch if value is not None}
        for _ in range(CONFLICT_ATTEMPTS):
            old = await self._expected(webhook_id, expected)
            changed = tuple(sorted(name for name, value in given.items() if getattr(old, name) != value))
            if not changed:
                return old
            new = replace(old, **given)
            if new.enabled:
                new = replace(new, disabled_reason=None)
            if await self._store(old, new, changed, Change("webhook.update", caller)):
                return await self.get(webhook_id)
        raise _too_busy()

    async def rotate(
        self, webhook_id: str, overlap_s: float, expected: Expected, caller: Caller
    ) -> tuple[Webhook, str]:
        """A new secret, shown here only; for the overlap, requests are signed with the one before as well."""
        for _ in range(CONFLICT_ATTEMPTS):
            old = await self._expected(webhook_id, expected)
            secret, until = _new_secret(), self._clock.now() + timedelta(seconds=overlap_s)
            new = replace(
                old,
                secret_sealed=seal(self._keys.secret_key, secret),
                previous_secret_sealed=old.secret_sealed if overlap_s else None,
                previous_until=until if overlap_s else None,
            )
            if await self._store(old, new, ("secret",), Change("webhook.rotate-secret", caller)):
                return await self.get(webhook_id), secret
        raise _too_busy()

    async def delete(self, webhook_id: str, expected: Expected, caller: Caller) -> None:
        """Forget a webhook and its delivery log."""
        for _ in range(CONFLICT_ATTEMPTS):
            webhook = await self._expected(webhook_id, expected)
            event = WebhookDeletedV1(id=webhook.id, name=webhook.name)
            if await self._webhooks.remove(webhook, Act(caller, "webhook.delete", event, before=_described(webhook))):
                log.info("webhook_deleted", webhook_id=webhook.id)
                return
        raise _too_busy()

    async def test(self, webhook_id: str) -> tuple[str, Attempt]:
        """Send one signed test now, whether the webhook is enabled or not; it goes to the delivery log."""
        webhook, event_id = await self.get(webhook_id), uuid7()
        body = _test_body(webhook, event_id, self._clock.now())
        attempt = await self._sender.send(webhook.url, self._signer.headers(webhook, event_id, body), body)
        await self._webhooks.record_test(webhook.id, event_id, attempt)
        return event_id, attempt

    async def deliveries(
        self, webhook_id: str, status: DeliveryStatus | None, after: int | None, limit: int
    ) -> Sequence[Delivery]:
        """The delivery log, newest first."""
        webhook = await self.get(webhook_id)
        return await self._webhooks.deliveries(webhook.id, status, after, limit)

    async def delivery(self, webhook_id: str, delivery_id: int) -> tuple[Delivery, Sequence[Attempt]]:
        """One delivery with its attempts; raises DomainError 404 `delivery_not_found`."""
        webhook = await self.get(webhook_id)
        found = await self._webhooks.delivery(webhook.id, delivery_id)
        if found is None:
            raise DomainError("delivery_not_found", f"This webhook has no delivery {delivery_id}.", status=404)
        return found

    async def redeliver(self, webhook_id: str, delivery_id: int) -> Delivery:
        """Send an event once more, under the same message id."""
        delivery, _ = await self.delivery(webhook_id, delivery_id)
        await self._require_enabled(webhook_id)
        if delivery.sequence is None:
            raise DomainError("not_an_event", "A test is no event: send another one.", status=409)
        queued = await self._webhooks.redeliver(delivery)
        if queued is None:
            raise DomainError("event_gone", "The event has left the log because of its age.", status=409)
        return queued

    async def redeliver_span(self, webhook_id: str, span: Span) -> int:
        """Send every event of a range that the webhook wants; returns how many were queued."""
        if span.until <= span.after:
            raise DomainError("empty_range", "`until` must lie above `after`.", status=422)
        webhook = await self._require_enabled(webhook_id)
        return await self._webhooks.redeliver_span(webhook, span)

    async def _require_enabled(self, webhook_id: str) -> Webhook:
        webhook = await self.get(webhook_id)
        if not webhook.enabled:
            raise DomainError("webhook_disabled", "The webhook is switched off. Enable it first.", status=409)
        return webhook

    async def _expected(self, webhook_id: str, expected: Expected) -> Webhook:
        webhook = await self.get(webhook_id)
        require_version(expected, webhook.version)
        return webhook

    async def _store(self, old: Webhook, new: Webhook, changed: tuple[str, ...], change: "Change") -> bool:
        new = replace(new, version=old.version + 1, updated_at=self._clock.now())
        event: Event = WebhookUpdatedV1(id=new.id, name=new.name, changed=changed)
        before, after = _described(old), _described(new)
        act = Act(
            change.caller,
            change.action,
            event,
            changed,
            {name: before[name] for name in changed if name in before},
            {name: after[name] for name in changed if name in after},
        )
        if not await self._webhooks.replace(new, act, resumed=new.enabled and not old.enabled):
            return False
        log.info("webhook_updated", webhook_id=new.id, changed=changed)
        return True


@dataclass(frozen=True, slots=True)
class Change:
    """What is done, and by whom."""

    action: str
    caller: Caller


def _new_secret() -> str:
    return encode_secret(secrets.token_bytes(SECRET_BYTES))


def _described(webhook: Webhook) -> Mapping[str, JsonValue]:
    """For the audit log: without secrets."""
    return {
        "name": webhook.name,
        "url": shown_url(webhook.url),
        "events": list(webhook.events),
        "enabled": webhook.enabled,
    }


def _test_body(webhook: Webhook, event_id: str, now: datetime) -> bytes:
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "cortex/registry",
        "type": TEST_TYPE,
        "subject": webhook.id,
        "time": now.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {"webhook_id": webhook.id, "name": webhook.name, "message": "This is a test."},
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _too_busy() -> DomainError:
    return DomainError("conflict", "The webhook was changed by others meanwhile. Try again.", status=409)
