"""Figures per model, read from each request when it is settled. Models are those of the routing table, no others."""

from collections.abc import Collection

from cortex_contracts.base import ModelId
from cortex_contracts.enums import UsageOutcome
from cortex_gateway import metrics
from cortex_gateway.domain.routing import Route, RoutingTable
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.instruments import Cell, Spread
from cortex_gateway.settlement import Exchange

UNKNOWN = "unknown"
"""Stands for every name that no model is served under: what clients send is no label."""
GATEWAY_TIMEOUT = 504
_COMPLETED = UsageOutcome.COMPLETED.value
_DISCONNECTED = UsageOutcome.CLIENT_DISCONNECTED.value


class _ModelCells:
    """Children of one model and kind of engine."""

    __slots__ = ("cached", "completion", "inter_token", "name", "outcomes", "prompt", "seconds", "ttft")

    def __init__(self, name: str, engine_type: str) -> None:
        self.name = name
        self.outcomes: dict[str, Cell] = {
            outcome.value: metrics.MODEL_REQUESTS.labels(name, engine_type, outcome.value) for outcome in UsageOutcome
        }
        self.prompt = metrics.TOKENS.labels(name, engine_type, "prompt")
        self.cached = metrics.TOKENS.labels(name, engine_type, "cached")
        self.completion = metrics.TOKENS.labels(name, engine_type, "completion")
        self.ttft: Spread = metrics.MODEL_TTFT.labels(name, engine_type)
        self.inter_token: Spread = metrics.INTER_TOKEN.labels(name, engine_type)
        self.seconds: Spread = metrics.MODEL_SECONDS.labels(name, engine_type)


class ModelMetrics:
    """An observer of settlements (`settlement.Observer`)."""

    def __init__(self) -> None:
        self._cells: dict[ModelId, _ModelCells] = {}
        self._unknown = _ModelCells(UNKNOWN, UNKNOWN)

    def settled(self, exchange: Exchange, data: UsageData) -> None:
        """Account for one request; a microsecond."""
        route = exchange.route
        cells = self._unknown if route is None else self._cells.get(route.model.id) or self._new(route)
        cells.outcomes[data.outcome].value += 1
        cells.prompt.value += data.prompt_tokens
        cells.completion.value += data.completion_tokens
        if data.cached_tokens:
            cells.cached.value += data.cached_tokens
        duration_s = data.duration_ms / 1000
        cells.seconds.observe(duration_s)
        if data.stream and data.ttft_ms is not None:
            ttft_s = data.ttft_ms / 1000
            cells.ttft.observe(ttft_s)
            if data.completion_tokens > 1:
                # The mean of the stream: no clock is asked per chunk.
                cells.inter_token.observe((duration_s - ttft_s) / (data.completion_tokens - 1))
        if data.outcome != _COMPLETED:
            self._note_failure(cells, data)

    def on_swap(self, table: RoutingTable) -> None:
        """Forget models that are gone."""
        present = {route.model.id: route.model.served_model_name for route in table.routes}
        for model_id, cells in tuple(self._cells.items()):
            if present.get(model_id) != cells.name:
                del self._cells[model_id]
        names = {route.model.served_model_name for route in table.routes} | {UNKNOWN}
        forget_others(names)

    def _new(self, route: Route) -> _ModelCells:
        model = route.model
        cells = self._cells[model.id] = _ModelCells(model.served_model_name, model.engine_type.value)
        return cells

    @staticmethod
    def _note_failure(cells: _ModelCells, data: UsageData) -> None:
        if data.outcome == _DISCONNECTED:
            metrics.CANCELLATIONS.labels(cells.name, "client_disconnected", data.route).inc()
        elif data.status == GATEWAY_TIMEOUT:
            metrics.TIMEOUTS.labels(cells.name, "first_byte", data.route).inc()


def forget_others(names: Collection[str]) -> None:
    """Drop the series of every model that is not among these."""
    for family in metrics.BY_MODEL:
        family.keep(lambda values: values[0] in names)
