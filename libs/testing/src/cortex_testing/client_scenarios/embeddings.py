"""Embeddings by the OpenAI client."""

# pyright: basic
import base64
import struct
from typing import Any

from cortex_testing.client_scenarios.clients import Clients, Outcome, refusal


def embeddings(c: Clients) -> Outcome:
    client = c.embedding
    answer = client.embeddings.create(model=c.embedder or c.model, input=["a cat", "a dog"])
    one = client.embeddings.create(model=c.embedder or c.model, input="a cat", encoding_format="base64")
    raw: Any = one.data[0].embedding
    decoded = (
        struct.unpack(f"<{len(base64.b64decode(raw)) // 4}f", base64.b64decode(raw)) if isinstance(raw, str) else raw
    )
    return {
        "indexes": [entry.index for entry in answer.data],
        "sizes": [len(entry.embedding) for entry in answer.data],
        "same": max(abs(left - right) for left, right in zip(answer.data[0].embedding, decoded, strict=True)) < 0.01,
        "usage": (answer.usage.prompt_tokens, answer.usage.total_tokens),
        "model": answer.model,
    }


def embeddings_dimensions(c: Clients) -> Outcome:
    client = c.embedding
    return refusal(lambda: client.embeddings.create(model=c.embedder or c.model, input="a", dimensions=4))


def embeddings_of_nothing(c: Clients) -> Outcome:
    client = c.embedding
    return refusal(lambda: client.embeddings.create(model=c.embedder or c.model, input=[]))


def embeddings_of_a_chat_model(c: Clients) -> Outcome:
    client = c.openai
    return refusal(lambda: client.embeddings.create(model=c.model, input="a"))


ALL = (
    embeddings,
    embeddings_dimensions,
    embeddings_of_nothing,
    embeddings_of_a_chat_model,
)
