"""What is read of an event of a stream of completions."""

import msgspec

from cortex_gateway.domain.usage import CompletionUsage


class ChoiceHead(msgspec.Struct):
    index: int | None = 0


class EventHead(msgspec.Struct):
    usage: CompletionUsage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    choices: list[ChoiceHead] | None = None


decode_head = msgspec.json.Decoder(EventHead).decode
"""Raises msgspec.DecodeError."""
