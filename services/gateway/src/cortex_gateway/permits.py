"""What a limited request took of the limits of its key."""

from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway.domain.limits import WINDOW_S, Limit
from cortex_gateway.ports import Headers
from cortex_gateway.shares import MeteredShare, Share
from cortex_gateway.stream_share import StreamShare
from cortex_kit.clock import Clock


class KeyState:
    """The shares of one key."""

    def __init__(self, document: KeyDocumentV1) -> None:
        self.document = document
        self.requests: MeteredShare | None = None
        self.tokens: MeteredShare | None = None
        self.budget: MeteredShare | None = None
        self.streams: StreamShare | None = None
        self.month = ""
        self.used_at = 0.0
        self.retired: list[MeteredShare] = []
        """Budgets of months that are over."""

    def shares(self) -> tuple[Share, ...]:
        own = (self.requests, self.tokens, self.budget, self.streams)
        return (*(share for share in own if share is not None), *self.retired)

    def headers(self, now: float) -> Headers:
        """OpenAI's rate-limit headers."""
        headers: Headers = []
        for share in (self.requests, self.tokens):
            if share is not None:
                headers += share.headers(now)
        return headers


class Permit:
    """What one request took: settled with what it really used, released when it ends. Both are idempotent."""

    __slots__ = ("_at", "_budget", "_clock", "_state", "_stream", "_tokens", "_units")

    def __init__(self, state: KeyState, clock: Clock, units: int, now: float) -> None:
        self._state = state
        self._clock = clock
        self._at = now
        self._units = units
        self._tokens: MeteredShare | None = None
        self._budget: MeteredShare | None = None
        self._stream: StreamShare | None = None

    def took(self, share: Share) -> None:
        """A share gave what was asked."""
        if share.limit is Limit.TOKENS and isinstance(share, MeteredShare):
            self._tokens = share
        elif share.limit is Limit.BUDGET and isinstance(share, MeteredShare):
            self._budget = share
        elif isinstance(share, StreamShare):
            self._stream = share

    def took_all(self, tokens: MeteredShare | None, budget: MeteredShare | None, stream: StreamShare | None) -> None:
        """Every share gave what was asked."""
        self._tokens, self._budget, self._stream = tokens, budget, stream

    def settle(self, tokens: int) -> None:
        """Correct the reservation by what was used."""
        now = self._clock.monotonic()
        more = tokens - self._units
        token_share, self._tokens = self._tokens, None
        budget_share, self._budget = self._budget, None
        if token_share is not None and (more > 0 or (more < 0 and now - self._at < WINDOW_S)):
            # A reservation that has left the window already is not given back.
            token_share.correct(more, now)
        if budget_share is not None and more:
            budget_share.correct(more, now)

    def release(self) -> None:
        """The request ended: its stream no longer counts."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.release()

    def headers(self) -> Headers:
        """OpenAI's rate-limit headers as of now."""
        return self._state.headers(self._clock.monotonic())

    def head(self) -> bytes:
        """The same as header lines."""
        state, now = self._state, self._clock.monotonic()
        requests, tokens = state.requests, state.tokens
        if tokens is None:
            return b"" if requests is None else requests.head(now)
        return tokens.head(now) if requests is None else requests.head(now) + tokens.head(now)
