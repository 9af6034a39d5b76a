"""The official clients at one address, and what a scenario asks and tells with them."""

# pyright: basic
# The clients answer with unions of dozens of models; every scenario reads the one it asked for, and fails where it is another.
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import httpx2
import openai

Outcome = dict[str, Any]
WORDS = "word " * 6000
ASK: list[Any] = [{"role": "user", "content": "Say hello to Anna."}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}


class Clients:
    """The official clients at one address.

    Args:
        address: of an engine or a gateway, without /v1.
        key: what that takes.
        model: answers; `embedder` embeds and is at `embedder_address` when that is another one.
        extra: members that make an engine's answers repeatable.
    """

    def __init__(
        self,
        address: str,
        key: str,
        model: str,
        *,
        embedder: tuple[str, str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.address = address
        self.model = model
        self.extra = dict(extra or {})
        self.http = httpx2.Client(verify=False)
        self.openai = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, http_client=self.http)
        # Its own header for keys is not what engines take, so both are sent.
        self.anthropic = anthropic.Anthropic(
            base_url=address,
            api_key=key,
            max_retries=0,
            default_headers={"authorization": f"Bearer {key}"},
        )
        where, embedder_key, self.embedder = embedder or (address, key, model)
        self.embedding = openai.OpenAI(
            base_url=f"{where}/v1", api_key=embedder_key, max_retries=0, http_client=self.http
        )

    def close(self) -> None:
        self.http.close()
        self.anthropic.close()

    def stranger(self) -> "Clients":
        """The same with a key that nobody has."""
        return Clients(self.address, "sk-wrong-key-of-nobody", self.model)

    def chat(self, **fields: Any) -> Any:
        given = {"model": self.model, "messages": ASK, "temperature": 0, "max_tokens": 12} | fields
        given["extra_body"] = {**self.extra, **given.get("extra_body", {})}
        answer = self.openai.chat.completions.create(**given)
        return list(answer) if given.get("stream") else answer

    def text(self, **fields: Any) -> Any:
        given = {"model": self.model, "prompt": "Once upon a", "temperature": 0, "max_tokens": 5} | fields
        given["extra_body"] = {**self.extra, **given.get("extra_body", {})}
        answer = self.openai.completions.create(**given)
        return list(answer) if given.get("stream") else answer


def usage_of(usage: Any) -> Outcome | None:
    if usage is None:
        return None
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "total": usage.total_tokens}


def refusal(act: Callable[[], object]) -> Outcome:
    """How the client tells of an error: the class it raises, and what of the body it understood."""
    try:
        given = act()
    except openai.APIStatusError as error:
        return {
            "raised": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "message": bool(error.message),
        }
    except anthropic.APIStatusError as error:
        body: Any = error.body
        shape = body.get("type") if isinstance(body, dict) else None
        detail = body.get("error") if isinstance(body, dict) else None
        kind = detail.get("type") if isinstance(detail, dict) else None
        return {"raised": type(error).__name__, "status": error.status_code, "shape": shape, "type": kind}
    except (openai.APITimeoutError, anthropic.APITimeoutError) as error:
        return {"raised": type(error).__name__}
    return {"raised": None, "given": type(given).__name__}
