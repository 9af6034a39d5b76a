"""The gateway's OpenAI-compatible API, as far as the command uses it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from cortex_cli.adapters.http_errors import api_error, transport_error
from cortex_cli.connection import Endpoint
from cortex_cli.shapes import as_list, as_object, parse_object

_TIMEOUT = httpx.Timeout(310.0, connect=5.0)
_DATA = "data:"


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request; None leaves the choice to the model's defaults."""

    model: str
    messages: Sequence[dict[str, str]]
    max_tokens: int | None = None
    temperature: float | None = None

    def body(self) -> dict[str, Any]:
        """The request as the API wants it."""
        body: dict[str, Any] = {"model": self.model, "messages": list(self.messages), "stream": True}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        return body


class GatewayApi:
    """Calls with an API key. Every method raises CliError for a refusal or a server that is away."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def chat(self, question: Question) -> AsyncGenerator[str]:
        """Pieces of the answer as they come."""
        try:
            async with self._client.stream("POST", f"{self._url}/v1/chat/completions", json=question.body()) as answer:
                if answer.is_error:
                    raise api_error(answer.status_code, (await answer.aread()).decode("utf-8", "replace"))
                async for line in answer.aiter_lines():
                    piece = piece_of(line)
                    if piece:
                        yield piece
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self._url) from error


@asynccontextmanager
async def gateway_api(endpoint: Endpoint) -> AsyncGenerator[GatewayApi]:
    """A client for the body; proxies of the environment are not used for it."""
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=False) as client:
        yield GatewayApi(client, endpoint.url)


def piece_of(line: str) -> str:
    """Text carried by one line of an event stream; empty for comments, roles, usage and the end mark.

    Raises:
        CliError: the line reports that the engine failed in the middle of the answer.
    """
    if not line.startswith(_DATA):
        return ""
    data = line.removeprefix(_DATA).strip()
    if data == "[DONE]":
        return ""
    event = parse_object(data)
    if event.get("error"):
        raise api_error(200, data)
    deltas = [as_object(as_object(choice).get("delta")) for choice in as_list(event.get("choices"))]
    return "".join(str(delta.get("content") or "") for delta in deltas)


@dataclass(slots=True)
class Conversation:
    """The messages of one chat, the newest last."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def ask(self, text: str) -> list[dict[str, str]]:
        """Add what the user says; returns everything to send."""
        self.messages.append({"role": "user", "content": text})
        return self.all()

    def answered(self, text: str) -> None:
        """Add what the model said."""
        self.messages.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Forget a question that got no answer."""
        self.messages.pop()

    def all(self) -> list[dict[str, str]]:
        """Everything, the system text first."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.messages]
