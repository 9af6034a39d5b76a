"""The members of request bodies that routing and accounting need."""

import msgspec

NULL = msgspec.Raw(b"null")


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class RequestFields(msgspec.Struct):
    """Unknown fields are skipped, not kept: the body itself is forwarded. `Raw` members are looked at by few."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    dimensions: int | None = None
    echo: bool | None = None
    logprobs: bool | int | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    prompt: msgspec.Raw = NULL
    messages: msgspec.Raw = NULL
    input: msgspec.Raw = NULL
    tools: msgspec.Raw = NULL
    tool_choice: msgspec.Raw = NULL
    prompt_cache_key: msgspec.Raw = NULL

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True


decode_fields = msgspec.json.Decoder(RequestFields).decode
"""Raises msgspec.DecodeError, ValidationError, or RecursionError."""
