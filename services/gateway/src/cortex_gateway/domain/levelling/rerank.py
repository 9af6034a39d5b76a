"""Ranking documents: one request and one answer for both engines, in the style of Cohere and Jina."""

from collections.abc import Sequence

import msgspec

from cortex_gateway.domain import errors

MAX_DOCUMENTS = 10_000


class _Document(msgspec.Struct):
    text: str


class RerankFields(msgspec.Struct):
    """What a client may ask for."""

    model: str
    query: str
    documents: list[str | _Document]
    top_n: int | None = None
    return_documents: bool | None = None


class _Result(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Usage(msgspec.Struct):
    total_tokens: int | None = None
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    results: list[_Result]
    id: str | None = None
    usage: _Usage | None = None


def read_rerank(body: bytes) -> RerankFields:
    """Decode and check a request.

    Raises:
        ApiError: 400 `invalid_value`.
    """
    try:
        fields = msgspec.json.decode(body, type=RerankFields)
    except msgspec.ValidationError as error:
        raise errors.invalid_value(None, f"Invalid request: {error}.") from error
    if not fields.documents or len(fields.documents) > MAX_DOCUMENTS:
        raise errors.invalid_value("documents", f"Invalid request: `documents` must hold 1 to {MAX_DOCUMENTS} texts.")
    if fields.top_n is not None and fields.top_n < 1:
        raise errors.invalid_value("top_n", "Invalid request: `top_n` must be at least 1.")
    return fields


def rerank_body(fields: RerankFields, served_name: str) -> bytes:
    """The request for either engine. All results are asked for: the gateway sorts and cuts."""
    return msgspec.json.encode({"model": served_name, "query": fields.query, "documents": texts(fields)})


def rerank_answer(body: bytes, fields: RerankFields, answer_id: str) -> bytes:
    """The answer for the client: best first. Raises msgspec.DecodeError when the engine's is unusable."""
    answer = msgspec.json.decode(body, type=_Answer)
    documents = texts(fields)
    known = [result for result in answer.results if 0 <= result.index < len(documents)]
    known.sort(key=lambda result: (-_score(result), result.index))
    shown = known[: fields.top_n] if fields.top_n is not None else known
    return msgspec.json.encode(
        {
            "id": answer.id or f"rerank-{answer_id}",
            "object": "list",
            "model": fields.model,
            "results": [
                {"index": result.index, "relevance_score": _score(result)}
                | ({"document": {"text": documents[result.index]}} if fields.return_documents else {})
                for result in shown
            ],
            "usage": _usage(answer.usage),
        }
    )


def texts(fields: RerankFields) -> Sequence[str]:
    return [document if isinstance(document, str) else document.text for document in fields.documents]


def _score(result: _Result) -> float:
    if result.relevance_score is not None:
        return result.relevance_score
    return result.score or 0.0


def _usage(usage: _Usage | None) -> dict[str, int]:
    total = 0 if usage is None else usage.total_tokens or usage.prompt_tokens or 0
    return {"prompt_tokens": total, "total_tokens": total}
