"""Routes of events."""

from typing import Annotated, Protocol

from fastapi import APIRouter, Header, Query, Request, Response

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_registry.domain.eventlog import EventFilter, check_patterns
from cortex_registry.domain.model import Model
from cortex_registry.domain.text import is_id
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.event_stream import EventStreamResponse, StillWelcome, StreamTiming
from cortex_registry.entrypoints.schemas.events import EventList, EventPageQuery, EventQuery, EventStreamQuery
from cortex_registry.handlers.eventlog import EventHistory
from cortex_registry.handlers.eventlog_feed import LiveEvents

_TEXT = {"schema": {"type": "string"}}


class Models(Protocol):
    """Finds models."""

    async def find(self, reference: str) -> Model | None: ...


async def resolve(query: EventQuery, models: Models) -> EventFilter:
    """The filter of a request, with the model's id. An id of a model that is gone is still one.

    Raises:
        DomainError: 404 `model_not_found`; 422 `invalid_pattern`.
    """
    patterns = check_patterns([part.strip() for value in query.type for part in value.split(",") if part.strip()])
    model_id = query.model
    if query.model is not None:
        found = await models.find(query.model)
        if found is None and not is_id(query.model):
            message = f"There is no model {query.model!r}. A deleted one is found by its id."
            raise DomainError("model_not_found", message, status=404)
        model_id = found.id if found is not None else query.model.lower()
    return EventFilter(patterns, model_id, query.replica, query.key, query.correlation, query.source, query.since)


class EventRoutes:
    """/admin/events."""

    def __init__(self, history: EventHistory, live: LiveEvents, models: Models, timing: StreamTiming) -> None:
        self._history = history
        self._live = live
        self._models = models
        self._timing = timing

    def router(self) -> APIRouter:
        routes = Routes("events")
        routes.add("GET", "/events", self.list_events, Right.EVENTS_READ, responses={404: {}})
        routes.add(
            "GET",
            "/events/stream",
            self.stream,
            Right.EVENTS_READ,
            response_class=Response,
            status_code=200,
            responses={
                200: {
                    "description": "A stream without end.",
                    "content": {"text/event-stream": {"schema": {"type": "string"}}},
                },
                404: {},
            },
        )
        return routes.router

    async def list_events(
        self,
        query: Annotated[EventPageQuery, Query()],
    ) -> EventList:
        """What happened. `after` goes on in the order asked for: with `order=oldest`, events above that sequence."""
        wanted = await resolve(query, self._models)
        newest_first = query.order == "newest"
        page = await self._history.page(wanted, after=query.after, newest_first=newest_first, limit=query.limit)
        return EventList.of(page, query.limit)

    async def stream(
        self,
        request: Request,
        query: Annotated[EventStreamQuery, Query()],
        last_event_id: Annotated[
            str | None, Header(max_length=64, description="Sent by an EventSource that resumes; wins over `after`.")
        ] = None,
    ) -> EventStreamResponse:
        """Events as they happen: `id` is the sequence, `event` the type, `data` a CloudEvent in JSON.

        Begins at the newest event, or behind `Last-Event-ID` or `after`. A client that is too slow is told `overrun` and
        ended; it resumes at its last id. `gap` says that events have left the log before they were asked for.
        """
        cursor = _cursor(last_event_id) if last_event_id else query.after
        filter_ = await resolve(query, self._models)
        start = await self._live.start(cursor)
        return EventStreamResponse(
            self._live.follow(filter_, start),
            cursor=start,
            may_go_on=StillWelcome(request, Right.EVENTS_READ),
            closing=self._live.closing,
            timing=self._timing,
        )


def _cursor(last_event_id: str) -> int:
    text = last_event_id.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        message = "Last-Event-ID is the id of an event of this stream: a number."
        raise DomainError("unknown_cursor", message, status=422)
    return int(text)
