"""What the gateway reads of a request body: one decode of the few fields that routing and accounting need."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from cortex_contracts.enums import Task
from cortex_gateway.domain import errors
from cortex_gateway.domain.request_fields import NULL, RequestFields, decode_fields

_LARGE = 1024 * 1024
_FIRST_BYTES = 64
_MAX_MODEL_WORDS = 10_000
_MAX_VALUES = 1_000_000


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One endpoint of the API that is forwarded to an engine. An empty scope means that any key will do."""

    path: str
    scope: str
    task: Task | None
    upstream_path: str
    streams: bool


API_ROUTES: Mapping[str, ApiRoute] = {
    route.path: route
    for route in (
        ApiRoute("/v1/chat/completions", "chat", Task.GENERATE, "/v1/chat/completions", streams=True),
        ApiRoute("/v1/completions", "completions", Task.GENERATE, "/v1/completions", streams=True),
        ApiRoute("/v1/embeddings", "embeddings", Task.EMBED, "/v1/embeddings", streams=False),
        ApiRoute("/v1/responses", "responses", Task.GENERATE, "/v1/responses", streams=True),
        ApiRoute("/v1/messages", "messages", Task.GENERATE, "/v1/messages", streams=True),
        ApiRoute("/v1/messages/count_tokens", "messages", Task.GENERATE, "/v1/messages/count_tokens", streams=False),
        ApiRoute("/v1/rerank", "rerank", Task.RERANK, "/v1/rerank", streams=False),
        ApiRoute("/rerank", "rerank", Task.RERANK, "/v1/rerank", streams=False),
        ApiRoute("/tokenize", "", None, "/tokenize", streams=False),
        ApiRoute("/detokenize", "", None, "/detokenize", streams=False),
    )
}


def decode_request(body: bytes) -> RequestFields:
    """Decode the fields that matter.

    Raises:
        ApiError: 400 `invalid_json`, or 400 `invalid_value` for a field of the wrong type.
    """
    try:
        if not body.isascii():
            check_utf8(body)
        if len(body) > _LARGE:
            _refuse_swarms(body)
        fields = decode_fields(body)
    except msgspec.ValidationError as error:
        raise errors.invalid_value(_param_of(str(error)), f"Invalid request: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.invalid_json(str(error)) from error
    except RecursionError as error:
        raise errors.invalid_json("it is nested too deeply") from error
    if body.count(b'"model"') > 1:
        _refuse_duplicates(body)
    return fields


def _refuse_swarms(body: bytes) -> None:
    """A large body of very many tiny values would take many times its size in memory."""
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if strings > _MAX_VALUES or body.count(b"[") + body.count(b"{") > _MAX_VALUES:
        raise errors.invalid_value(None, f"Invalid request: the body holds more than {_MAX_VALUES} values.")


def check_utf8(body: bytes) -> None:
    """Raises UnicodeDecodeError. A large body is looked at in parts: its text would take four times the memory."""
    if len(body) <= _LARGE:
        body.decode()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(body), _LARGE):
        decoder.decode(view[start : start + _LARGE])  # type: ignore[arg-type]  # any buffer will do
    decoder.decode(b"", final=True)


def _refuse_duplicates(body: bytes) -> None:
    """The gateway judges one `model`; an engine that read another one would walk around that.

    Every `"model"` gets a number, and those that are keys of the outermost object are counted: quick at any size. A
    body with very many of them is let through: all that read it take the last one, as the gateway does.
    """
    parts = body.split(b'"model"', _MAX_MODEL_WORDS)
    numbered = b"".join(b'%b"model %d"' % (part, number) for number, part in enumerate(parts[:-1])) + parts[-1]
    members = msgspec.json.decode(numbered, type=dict[str, msgspec.Raw])
    if sum(name.startswith("model ") and name[6:].isdecimal() for name in members) > 1:
        raise errors.invalid_value("model", "Invalid request: `model` is given more than once.")


def _param_of(detail: str) -> str | None:
    """The field a msgspec message is about: 'Expected `bool`, got `str` - at `$.stream`'."""
    if "missing required field" in detail:
        return detail.rpartition("field `")[2].rstrip("`") or None
    path = detail.rpartition("at `$.")[2]
    return path.partition("`")[0] or None if "at `$." in detail else None


def check_task(route: ApiRoute, model: str, task: Task) -> None:
    """Raises ApiError 400 when the model does not serve what the endpoint offers."""
    if task is route.task or route.task is None:
        return
    usable = [candidate.path for candidate in API_ROUTES.values() if candidate.task is task]
    raise errors.wrong_task(model, task.value, " or ".join(usable) or "another endpoint")


def prompt_items(fields: RequestFields) -> list[msgspec.Raw]:
    """The prompts of a /v1/completions request: a list of strings or of token lists holds several."""
    raw = bytes(fields.prompt)
    if raw[1:_FIRST_BYTES].lstrip()[:1] not in (b'"', b"[") or not raw.startswith(b"["):
        return [fields.prompt]
    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return items


def prompt_count(fields: RequestFields) -> int:
    """Number of prompts in a /v1/completions request."""
    return 1 if fields.prompt is NULL else len(prompt_items(fields))
