"""Requests that the direct path began and that need more patience than it has."""

from collections.abc import Awaitable
from dataclasses import dataclass

from cortex_gateway.attempts import Sent
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Ask
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import UpstreamResponse
from cortex_gateway.settlement import Exchange


@dataclass(slots=True)
class Begun:
    """What is known of the request, and how far it came: the end of an attempt, or an error to be told."""

    exchange: Exchange
    ask: Ask
    metrics: RouteMetrics
    attempt: tuple[Sent, Awaitable[UpstreamResponse]] | None
    error: ApiError | None = None
