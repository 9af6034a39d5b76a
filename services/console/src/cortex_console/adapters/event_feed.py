"""The registry's stream of events: one connection for each signed-in browser, whatever number of pages it has open."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from enum import StrEnum

import httpx

from cortex_console.adapters.admin_api import AdminApi
from cortex_console.domain.shapes import row
from cortex_console.errors import ConsoleError
from cortex_console.ports import Batch, Event, OnBatch
from cortex_kit.logging import get_logger

log = get_logger()
STREAM = "/events/stream"
SILENCE_S = 60.0
"""The registry says something, if only a comment, every 15 s."""
_RETRY_S = 0.5
_RETRY_MAX_S = 8.0
_GATHER_S = 0.25
_MOST = 500


class FeedState(StrEnum):
    """How live a page is."""

    CONNECTING = "connecting"
    LIVE = "live"
    RETRYING = "retrying"
    SIGNED_OUT = "signed_out"


OnState = Callable[[FeedState], None]


class Subscription:
    """A page's share: events gather for a moment, so that a burst is one update of the page."""

    def __init__(self, on_batch: OnBatch, on_state: OnState) -> None:
        self._on_batch = on_batch
        self.on_state = on_state
        self._waiting: list[Event] = []
        self._resync = False
        self._some = asyncio.Event()

    def put(self, event: Event | None) -> None:
        """An event; None: some may have been missed."""
        if event is None or len(self._waiting) >= _MOST:
            self._resync = True
        else:
            self._waiting.append(event)
        self._some.set()

    async def run(self) -> None:
        """Hand batches over, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            self._some.clear()
            batch = Batch(tuple(self._waiting), self._resync)
            self._waiting, self._resync = [], False
            try:
                await self._on_batch(batch)
            except ConsoleError as error:
                log.info("page_update_failed", code=error.code)
            except Exception:
                # The boundary of a page: what one page does with an event must not end the feed of the others.
                log.exception("page_update_crashed")


@dataclass(slots=True)
class _Feed:
    api: AdminApi
    pages: set[Subscription] = field(default_factory=set[Subscription])
    task: asyncio.Task[None] | None = None
    state: FeedState = FeedState.CONNECTING


class EventHub:
    """All feeds of this process. `run` is the task that they live in."""

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self._group: asyncio.TaskGroup | None = None
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Live until cancelled; feeds and pages end with it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._done.wait()

    @property
    def connections(self) -> int:
        """How many streams are open or being opened."""
        return len(self._feeds)

    def subscribe(self, api: AdminApi, on_batch: OnBatch, on_state: OnState) -> Callable[[], None]:
        """Call `on_batch` with what happens from now on; the function that is returned ends that."""
        if self._group is None:
            return lambda: None
        key = hashlib.sha256(api.secrets.session.encode()).hexdigest()
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed(api)
            feed.task = self._group.create_task(_follow(feed), name="feed")
        page = Subscription(on_batch, on_state)
        feed.pages.add(page)
        on_state(feed.state)
        task = self._group.create_task(page.run(), name="page")

        def leave() -> None:
            task.cancel()
            feed.pages.discard(page)
            if not feed.pages and self._feeds.get(key) is feed:
                del self._feeds[key]
                if feed.task is not None:
                    feed.task.cancel()

        return leave


async def _follow(feed: _Feed) -> None:
    last, delay = "", _RETRY_S
    while True:
        try:
            async with feed.api.open_stream(STREAM, headers={"Last-Event-ID": last} if last else None) as response:
                _tell(feed, FeedState.LIVE)
                async for id_, name, data in _received(response):
                    delay = _RETRY_S
                    last = id_ or last
                    if name == "signed_out":
                        _tell(feed, FeedState.SIGNED_OUT)
                        return
                    _spread(feed, id_, name, data)
        except ConsoleError as error:
            if error.is_signed_out:
                _tell(feed, FeedState.SIGNED_OUT)
                return
        except (httpx.HTTPError, TimeoutError):
            pass  # the registry restarts, or the network does: it is tried again below
        _tell(feed, FeedState.RETRYING)
        await asyncio.sleep(delay)
        delay = min(_RETRY_MAX_S, delay * 2)


def _spread(feed: _Feed, id_: str, name: str, data: str) -> None:
    if name in ("gap", "overrun"):
        event = None
    elif data:
        event = Event(int(id_) if id_.isdecimal() else 0, name, row(json.loads(data)))
    else:
        return
    for page in feed.pages:
        page.put(event)


def _tell(feed: _Feed, state: FeedState) -> None:
    if feed.state is state:
        return
    feed.state = state
    for page in list(feed.pages):
        page.on_state(state)


async def _received(response: httpx.Response) -> AsyncGenerator[tuple[str, str, str]]:
    """Id, name and data of each event; one with an id alone only moves the place to resume at."""
    id_, name, data = "", "message", ""
    lines = response.aiter_lines()
    while True:
        async with asyncio.timeout(SILENCE_S):
            line = await anext(lines, None)
        if line is None:
            return
        kind, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match kind:
            case "id":
                id_ = value
            case "event":
                name = value
            case "data":
                data += value
            case "" if not line and (data or id_):
                yield id_, name, data
                name, data = "message", ""
            case _:
                pass
