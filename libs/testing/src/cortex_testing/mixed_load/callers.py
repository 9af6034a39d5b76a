"""Official clients at several gateways, one key for each kind of request, so that each kind has records of its own."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anthropic
import httpx2
import openai

CHATS = (
    "Say hello.",
    "Count from one to twenty in words.",
    "Tell me a story about a river and a boat that nobody owns.",
    "Which colours has a rainbow, and why does it have them?",
    "List the months of the year, one a line.",
)
TEXTS = ("Once upon a time", "The sea was", "In the year 1900 there lived a man who")
HANG_S = 150.0
"""A request that takes longer hangs: more than any deadline of the gateway with the load that is applied."""


@dataclass(frozen=True)
class Caller:
    """One kind of request at one gateway."""

    kind: str
    url: str
    key: str
    http: httpx2.AsyncClient
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@dataclass
class Callers:
    """Every kind of request at every gateway.

    Args:
        gateways: base URLs without /v1.
        keys: by kind of request.
        models: that generate; `embedder` embeds.
    """

    gateways: Sequence[str]
    keys: Mapping[str, str]
    models: Sequence[str]
    embedder: str
    seed: int
    prompt_tokens: dict[str, int] = field(default_factory=dict[str, int])
    """What each of CHATS and TEXTS costs, asked once in peace."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        limits = httpx2.Limits(max_connections=500, max_keepalive_connections=50)
        self._http = httpx2.AsyncClient(timeout=HANG_S, limits=limits, trust_env=False)
        self._callers = {
            (url, kind): Caller(
                kind,
                url,
                key,
                self._http,
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=self._http),
                anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, http_client=self._http),
            )
            for url in self.gateways
            for kind, key in self.keys.items()
        }

    def at(self, url: str, kind: str) -> Caller:
        return self._callers[url, kind]

    def other(self, url: str) -> str:
        """Another gateway."""
        return self.random.choice([one for one in self.gateways if one != url])

    def model(self) -> str:
        return self.random.choice(self.models)

    async def close(self) -> None:
        await self._http.aclose()
