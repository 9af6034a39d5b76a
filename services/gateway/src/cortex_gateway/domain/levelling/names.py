"""Small repairs of answers by replacing bytes: cheap enough for every chunk, and never inside a text.

A quote inside a JSON string is escaped, so `"model":"x"` with plain quotes is always a member and its value.
"""

import re

import msgspec

Renames = tuple[tuple[bytes, bytes], ...]

_REASONING = re.compile(rb'"reasoning(?:_content)?":("(?:[^"\\]|\\.)*")')
_BOTH = rb'"reasoning":\1,"reasoning_content":\1'
CHAT_ID_TO_TEXT_ID = (b'"id":"chatcmpl-', b'"id":"cmpl-')
"""llama-server gives text completions the ids of chats."""


def model_rename(asked: str, served: str) -> Renames:
    """Answers name the model as the client did."""
    if asked == served:
        return ()
    return ((b'"model":' + msgspec.json.encode(served), b'"model":' + msgspec.json.encode(asked)),)


def rename(data: bytes, renames: Renames) -> bytes:
    for old, new in renames:
        data = data.replace(old, new)
    return data


def both_reasonings(data: bytes) -> bytes:
    """llama-server says `reasoning_content`, vLLM `reasoning`: show clients of either what they look for."""
    at = data.find(b'"reasoning')
    if at < 0 or (data.find(b'"reasoning":"', at) < 0) is (data.find(b'"reasoning_content":"', at) < 0):
        return data  # both are there already, or neither: vLLM says null where there is none
    return _REASONING.sub(_BOTH, data)
