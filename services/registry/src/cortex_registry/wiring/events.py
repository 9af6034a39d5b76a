"""Events for humans and programs: the log, its live stream, webhooks, the audit log, and why."""

from datetime import timedelta

from cortex_contracts.streams import DAY
from cortex_registry.adapters.audit import PostgresAudit
from cortex_registry.adapters.eventlog import PostgresEventLog, PostgresEventSource
from cortex_registry.adapters.eventlog_why import PostgresHistory
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.webhooks import PostgresWebhooks
from cortex_registry.adapters.webhooks_http import HttpSender
from cortex_registry.adapters.webhooks_queue import PostgresWebhookQueueSource, PostgresWebhookResults
from cortex_registry.entrypoints.event_stream import StreamTiming
from cortex_registry.entrypoints.events import attach_events
from cortex_registry.entrypoints.routes.audit import AuditRoutes
from cortex_registry.entrypoints.routes.events import EventRoutes
from cortex_registry.entrypoints.routes.webhooks import WebhookRoutes
from cortex_registry.entrypoints.routes.why import WhyRoutes
from cortex_registry.handlers.audit import AuditService
from cortex_registry.handlers.eventlog import EventBatcher, EventHistory, EventPruner
from cortex_registry.handlers.eventlog_feed import EventFeed, LiveEvents
from cortex_registry.handlers.webhooks import Keys, Signer, WebhookService
from cortex_registry.handlers.webhooks_dispatch import Dispatcher, DispatchRules
from cortex_registry.handlers.why import WhyService
from cortex_registry.wiring.core import Core, Part, Task


def events_part(core: Core) -> Part:
    """Routes and tasks of the event log, of webhooks and of the audit log."""
    settings = core.settings
    events = PostgresEventLog(core.database)
    batcher = EventBatcher(events, batch_size=settings.events_batch_size, wait_s=settings.events_batch_wait_s)
    attach_events(core.broker, batcher, concurrency=settings.events_batch_size)
    feed = EventFeed(PostgresEventSource(core.database), keep=settings.events_queue)
    live = LiveEvents(events, feed, max_clients=settings.events_max_clients)
    pruner = EventPruner(events, max_age_s=settings.events_retention_days * DAY, max_rows=settings.events_max_rows)
    timing = StreamTiming(settings.events_heartbeat_s, settings.events_recheck_s)
    models = PostgresModels(core.database)
    why = WhyService(models, core.observation, PostgresHistory(core.database), core.clock)
    webhooks, webhook_tasks = _webhooks(core)
    return Part(
        routers=(
            EventRoutes(EventHistory(events), live, models, timing).router(),
            webhooks.router(),
            AuditRoutes(AuditService(PostgresAudit(core.database))).router(),
            WhyRoutes(why).router(),
        ),
        tasks={"event-feed": feed.run, "event-pruner": pruner.run, **webhook_tasks},
        fed={"event-batches": batcher.run},
        drain=(live.close,),
    )


def _webhooks(core: Core) -> tuple[WebhookRoutes, dict[str, Task]]:
    settings = core.settings
    keys = Keys(settings.secret_key, settings.secret_keys_old)
    signer = Signer(keys, core.clock)
    sender = HttpSender(
        clock=core.clock,
        timeout_s=settings.webhooks_timeout_s,
        allow_private=settings.webhooks_allow_private,
        ca_file=settings.webhooks_ca_file,
    )
    service = WebhookService(PostgresWebhooks(core.database), sender, signer, keys=keys, clock=core.clock)
    rules = DispatchRules(
        timeout_s=settings.webhooks_timeout_s,
        per_webhook=settings.webhooks_concurrency,
        in_flight=settings.webhooks_max_in_flight,
        max_pending=settings.webhooks_max_pending,
        retry_base_s=settings.webhooks_retry_base_s,
        disable_after=timedelta(days=settings.webhooks_disable_after_days),
        keep=timedelta(days=settings.webhooks_retention_days),
    )
    source, results = PostgresWebhookQueueSource(core.database), PostgresWebhookResults(core.database)
    dispatcher = Dispatcher(source, results, sender, signer, clock=core.clock, rules=rules)
    return WebhookRoutes(service), {"webhooks": dispatcher.run, "webhook-requests": sender.run}
