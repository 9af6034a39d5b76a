"""What a page is, and what it is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx
from nicegui import Client

from cortex_console.adapters.admin_api import AdminApi
from cortex_console.adapters.event_feed import EventHub, FeedState
from cortex_console.adapters.gateway_api import GatewayApi
from cortex_console.adapters.playground_keys import PlaygroundKeys
from cortex_console.domain.answering import UnderWay
from cortex_console.domain.identity import Me
from cortex_console.ports import Batch, OnBatch
from cortex_contracts.rights import Right


@dataclass(slots=True)
class ThemeState:
    """Which theme a page shows now."""

    dark: bool
    _listeners: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call it after each change."""
        self._listeners.append(listener)

    def set(self, dark: bool) -> None:
        """Change it."""
        self.dark = dark
        for listener in self._listeners:
            listener()


@dataclass(frozen=True, slots=True)
class Installation:
    """What all pages share."""

    registry: httpx.AsyncClient
    gateway: httpx.AsyncClient
    gateway_url: str
    """What people are shown."""
    hub: EventHub
    assets: str
    playground_keys: PlaygroundKeys
    answers: UnderWay = field(default_factory=UnderWay)


@dataclass(slots=True)
class PageContext:
    """Given to the `build` of a page: who looks, where to ask, what was asked for."""

    page: "Page"
    api: AdminApi
    me: Me
    theme: ThemeState
    installation: Installation
    parameters: Mapping[str, str]
    """Of the path, like `reference` in /models/{reference}."""
    query: Mapping[str, str]
    _handlers: list[OnBatch] = field(default_factory=list[OnBatch])

    def may(self, right: Right) -> bool:
        """Whether to offer something. The registry is the judge; this only saves people a refusal."""
        return self.me.may(right)

    def why_not(self, right: Right) -> str | None:
        """The reason to show at a button they may not use; None when they may."""
        return self.me.why_not(right)

    def gateway(self, key: str) -> GatewayApi:
        """The OpenAI API with a key of the user's."""
        return GatewayApi(self.installation.gateway, key)

    def on_events(self, handler: OnBatch) -> None:
        """Call `handler` with batches of events while the page is open, in its own context. Call this while building."""
        self._handlers.append(handler)

    def follow(self, client: Client, on_state: Callable[[FeedState], None]) -> None:
        """Begin to follow events; the shell does this once."""

        async def on_batch(batch: Batch) -> None:
            with client.content:
                for handler in self._handlers:
                    await handler(batch)

        def show(state: FeedState) -> None:
            with client.content:
                on_state(state)

        leave = self.installation.hub.subscribe(self.api, on_batch, show)
        client.on_delete(leave)


Build = Callable[[PageContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page. Each module of `pages/` has one or more of them."""

    path: str
    title: str
    build: Build
    right: Right = Right.SELF
    """Without it the page is not in the navigation, and says so to whoever comes by its address."""
    icon: str = ""
    group: str = ""
    """Heading in the navigation; empty: it is not there."""
    belongs_to: str = ""
    """Path of the entry that is marked in the navigation; empty: its own."""
