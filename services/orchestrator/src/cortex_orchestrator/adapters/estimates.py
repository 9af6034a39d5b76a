"""The inspector's estimates by request-reply."""

from cortex_contracts.estimates import EstimateRequestV1, EstimateResultV1
from cortex_contracts.subjects import RPC_GGUF_ESTIMATE
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError


class RpcEstimates:
    """The port `MemoryEstimator`."""

    def __init__(self, bus: Bus, *, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        """One request; fails at once while NATS is away or no inspector listens."""
        if not self._bus.connected:
            raise TransientError("NATS is not connected, so that the inspector cannot be asked")
        return await self._bus.request(RPC_GGUF_ESTIMATE, request, EstimateResultV1, timeout=self._timeout_s)
