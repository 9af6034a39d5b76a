"""Small real requests to engines, in the words of the OpenAI API that both speak."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, assert_never

import httpx
from pydantic import BaseModel, ValidationError

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import Task
from cortex_contracts.operations import TestResultV1
from cortex_health.adapters.documents import EngineKeys
from cortex_health.domain.verdicts import Outcome, Probe, Reason

MAX_BODY_BYTES = 1024 * 1024
MAX_TOKENS = 8
MAX_WORDS = 500
_PROMPT = "Say hello."
_DOCUMENTS = ("The sky is blue.", "Bread is baked in an oven.", "A cat sleeps on the sofa.")
_NO_CHAT = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED)


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    message: _Message = _Message()
    text: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Embedding(BaseModel):
    embedding: list[Any] | str = ""


class _Ranked(BaseModel):
    index: int
    relevance_score: float | None = None


class _Answer(BaseModel):
    """The part of any answer that we read."""

    choices: list[_Choice] = []
    data: list[_Embedding] = []
    results: list[_Ranked] = []
    usage: _Usage = _Usage()


class _ErrorObject(BaseModel):
    message: str = ""


class _Refusal(BaseModel):
    error: _ErrorObject | str | None = None
    detail: object = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    path: str
    body: Mapping[str, object]


class HttpRequests:
    """The port `Requests`."""

    def __init__(self, client: httpx.AsyncClient, keys: EngineKeys, *, deadline_s: float) -> None:
        self._client = client
        self._keys = keys
        self._deadline_s = deadline_s

    async def send(
        self, replica: ReplicaDocumentV1, model: ModelDocumentV1, served_name: str, prompt: str | None
    ) -> TestResultV1:
        started = time.perf_counter()
        status: int | None = None
        body, error = b"", None
        try:
            async with asyncio.timeout(self._deadline_s):
                status, body = await self._ask(replica, model.task, served_name, prompt or _PROMPT)
        except (httpx.TimeoutException, TimeoutError):
            error = f"no answer within {self._deadline_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"the connection failed ({type(failure).__name__})"
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        if error is None and status is not None:
            return _result(replica, model.task, status, body, milliseconds)
        return TestResultV1(replica_id=replica.id, ok=False, status=status, duration_ms=milliseconds, error=error)

    async def prove(self, replica: ReplicaDocumentV1, model: ModelDocumentV1, served_name: str) -> Probe:
        """One request for one token, as a probe: what it says does not matter, that it is said does."""
        try:
            async with asyncio.timeout(self._deadline_s):
                status, _ = await self._ask(replica, model.task, served_name, _PROMPT, max_tokens=1)
        except (httpx.TimeoutException, TimeoutError):
            return Probe(Outcome.TIMEOUT, Reason.REQUEST_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL):
            return Probe(Outcome.BROKEN, Reason.REQUEST_FAILED)
        if status == HTTPStatus.OK:
            return Probe(Outcome.OK, Reason.ANSWERS)
        return Probe(Outcome.BAD_STATUS, Reason.REQUEST_FAILED)

    async def _ask(
        self, replica: ReplicaDocumentV1, task: Task, name: str, prompt: str, *, max_tokens: int = MAX_TOKENS
    ) -> tuple[int, bytes]:
        status, body = await self._post(replica, _question(task, name, prompt, max_tokens))
        if task is not Task.GENERATE or status not in _NO_CHAT:
            return status, body
        # A model without a chat template refuses chats, and completes.
        plain = {"model": name, "prompt": prompt, "max_tokens": max_tokens}
        other_status, other_body = await self._post(replica, _Question("/v1/completions", plain))
        return (other_status, other_body) if other_status == HTTPStatus.OK else (status, body)

    async def _post(self, replica: ReplicaDocumentV1, question: _Question) -> tuple[int, bytes]:
        key = self._keys.of(replica)
        url = f"{(replica.endpoint or '').rstrip('/')}{question.path}"
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        timeout = httpx.Timeout(self._deadline_s)
        async with self._client.stream("POST", url, json=question.body, headers=headers, timeout=timeout) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    break
            return response.status_code, bytes(body)


def _question(task: Task, name: str, prompt: str, max_tokens: int) -> _Question:
    match task:
        case Task.GENERATE:
            messages = [{"role": "user", "content": prompt}]
            return _Question("/v1/chat/completions", {"model": name, "messages": messages, "max_tokens": max_tokens})
        case Task.EMBED:
            return _Question("/v1/embeddings", {"model": name, "input": prompt})
        case Task.RERANK:
            return _Question("/v1/rerank", {"model": name, "query": prompt, "documents": list(_DOCUMENTS)})
        case _:
            assert_never(task)


def _result(replica: ReplicaDocumentV1, task: Task, status: int, body: bytes, milliseconds: float) -> TestResultV1:
    if status != HTTPStatus.OK:
        return TestResultV1(
            replica_id=replica.id, ok=False, status=status, duration_ms=milliseconds, error=_engine_words(status, body)
        )
    try:
        answer = _Answer.model_validate_json(body)
        output = _describe(task, answer)
    except ValidationError:
        output, answer = None, _Answer()
    return TestResultV1(
        replica_id=replica.id,
        ok=output is not None,
        status=status,
        duration_ms=milliseconds,
        output=output,
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=answer.usage.completion_tokens,
        error=None if output is not None else "the answer holds nothing that such a model answers",
    )


def _describe(task: Task, answer: _Answer) -> str | None:
    """The answer in a few words; None when there is none."""
    match task:
        case Task.GENERATE:
            return _text(answer.choices[0])[:MAX_WORDS] if answer.choices else None
        case Task.EMBED:
            size = len(answer.data[0].embedding) if answer.data else 0
            return f"an embedding of {size} numbers" if size else None
        case Task.RERANK:
            ranking = sorted(answer.results, key=lambda item: -(item.relevance_score or 0.0))
            return "ranking " + ", ".join(str(item.index) for item in ranking) if ranking else None
        case _:
            assert_never(task)


def _text(choice: _Choice) -> str:
    message = choice.message
    return choice.text or message.content or message.reasoning_content or message.reasoning or ""


def _engine_words(status: int, body: bytes) -> str:
    try:
        refusal = _Refusal.model_validate_json(body)
    except ValidationError:
        words = body[:MAX_WORDS].decode("utf-8", "replace").strip()
        return words or f"HTTP {status}"
    said = refusal.error.message if isinstance(refusal.error, _ErrorObject) else refusal.error
    return str(said or refusal.message or refusal.detail or f"HTTP {status}")[:MAX_WORDS]
