"""What the gateway reads of a request body: one decode of the few fields that routing and accounting need."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from cortex_contracts.enums import Task
from cortex_gateway.domain import errors


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class RequestFields(msgspec.Struct):
    """Unknown fields are skipped, not kept: the body itself is forwarded."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    dimensions: int | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One endpoint of the API that is forwarded to an engine."""

    path: str
    scope: str
    task: Task
    upstream_path: str
    streams: bool


API_ROUTES: Mapping[str, ApiRoute] = {
    route.path: route
    for route in (
        ApiRoute("/v1/chat/completions", "chat", Task.GENERATE, "/v1/chat/completions", streams=True),
        ApiRoute("/v1/completions", "completions", Task.GENERATE, "/v1/completions", streams=True),
        ApiRoute("/v1/embeddings", "embeddings", Task.EMBED, "/v1/embeddings", streams=False),
    )
}

_decode = msgspec.json.Decoder(RequestFields).decode


def decode_request(body: bytes) -> RequestFields:
    """Decode the fields that matter.

    Raises:
        ApiError: 400 `invalid_json`, or 400 `invalid_value` for a field of the wrong type.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise errors.invalid_value(_param_of(str(error)), f"Invalid request: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.invalid_json(str(error)) from error


def _param_of(detail: str) -> str | None:
    """The field a msgspec message is about: 'Expected `bool`, got `str` - at `$.stream`'."""
    if "missing required field" in detail:
        return detail.rpartition("field `")[2].rstrip("`") or None
    path = detail.rpartition("at `$.")[2]
    return path.partition("`")[0] or None if "at `$." in detail else None


def check_task(route: ApiRoute, model: str, task: Task) -> None:
    """Raises ApiError 400 when the model does not serve what the endpoint offers."""
    if task is route.task:
        return
    usable = [candidate.path for candidate in API_ROUTES.values() if candidate.task is task]
    raise errors.wrong_task(model, task.value, " or ".join(usable) or "another endpoint")


def prompt_count(fields: RequestFields) -> int:
    """Number of prompts in a /v1/completions request: a list of strings or of token lists holds several."""
    raw = bytes(fields.prompt)
    if not raw.startswith(b"["):
        return 1
    items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return max(1, len(items)) if items and bytes(items[0])[:1] in (b'"', b"[") else 1
