"""Token counts as engines write them, and the usage record as this gateway does."""

from datetime import datetime

import msgspec


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionUsage(msgspec.Struct):
    """The usage object of chats, completions, embeddings and rankings."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Usage(msgspec.Struct):
    """The usage object of responses and of messages."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: PromptDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Tokens(msgspec.Struct, frozen=True):
    """Token counts of a request."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    estimated: bool = False


class _Completion(msgspec.Struct):
    usage: CompletionUsage | None = None


class _Response(msgspec.Struct):
    usage: Usage | None = None


decode_completion = msgspec.json.Decoder(_Completion).decode
decode_response = msgspec.json.Decoder(_Response).decode


class UsageData(msgspec.Struct, omit_defaults=False):
    """`UsageRecordedV1` as msgspec writes it: ten times cheaper than pydantic. A test keeps the two alike."""

    request_id: str
    key_id: str
    user_id: str | None
    org_id: str | None
    model_id: str | None
    model: str
    engine_type: str | None
    replica_id: str | None
    task: str
    route: str
    stream: bool
    status: int
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    estimated: bool
    ttft_ms: float | None
    duration_ms: float
    started_at: datetime


class _Identified(msgspec.Struct):
    id: str


decode_id = msgspec.json.Decoder(_Identified).decode
