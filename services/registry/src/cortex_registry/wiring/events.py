"""Events for humans and programs: the log, its live stream, webhooks, the audit log, and why."""

from cortex_contracts.streams import DAY
from cortex_registry.adapters.eventlog import PostgresEventLog, PostgresEventSource
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.entrypoints.event_stream import StreamTiming
from cortex_registry.entrypoints.events import attach_events
from cortex_registry.entrypoints.routes.events import EventRoutes
from cortex_registry.handlers.eventlog import EventBatcher, EventHistory, EventPruner
from cortex_registry.handlers.eventlog_feed import EventFeed, LiveEvents
from cortex_registry.wiring.core import Core, Part


def events_part(core: Core) -> Part:
    """Routes and tasks of the event log."""
    settings = core.settings
    events = PostgresEventLog(core.database)
    batcher = EventBatcher(events, batch_size=settings.events_batch_size, wait_s=settings.events_batch_wait_s)
    attach_events(core.broker, batcher, concurrency=settings.events_batch_size)
    feed = EventFeed(PostgresEventSource(core.database), keep=settings.events_queue)
    live = LiveEvents(events, feed, max_clients=settings.events_max_clients)
    pruner = EventPruner(events, max_age_s=settings.events_retention_days * DAY, max_rows=settings.events_max_rows)
    timing = StreamTiming(settings.events_heartbeat_s, settings.events_recheck_s)
    return Part(
        routers=(EventRoutes(EventHistory(events), live, PostgresModels(core.database), timing).router(),),
        tasks={"event-feed": feed.run, "event-pruner": pruner.run},
        fed={"event-batches": batcher.run},
        drain=(live.close,),
    )
