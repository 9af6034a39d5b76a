"""The body for the engine: the very same bytes unless something has to change."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from cortex_gateway.domain.request_fields import RequestFields, StreamOptions

Members = Mapping[str, msgspec.Raw]
_Object = dict[str, msgspec.Raw]
NOTHING: Members = MappingProxyType({})
_INCLUDE_USAGE = b'"stream_options":{"include_usage":true}'
_TRUE = msgspec.Raw(b"true")


class Changes(NamedTuple):
    """What the engine has to be told otherwise than the client said it."""

    model: str
    """The name the engine knows the model by."""
    defaults: Members = NOTHING
    """Members for what the client left open."""
    ask_usage: bool = False
    """It is a stream of completions, which reports its usage only when asked."""
    replace: Members = NOTHING


def prepare_body(body: bytes, fields: RequestFields, changes: Changes) -> bytes:
    """An alias becomes the served name, absent members take defaults, and a stream always reports its usage (the client
    sees it only if it asked, see StreamLeveller). Numbers stay as they were written."""
    inject = changes.ask_usage and not fields.wants_usage
    if fields.model == changes.model and not changes.defaults and not changes.replace:
        if not inject:
            return body
        if fields.stream_options is None and b'"stream_options"' not in body:
            return splice(body, _INCLUDE_USAGE)
    return _rewrite(body, fields, changes, inject=inject)


def splice(body: bytes, member: bytes) -> bytes:
    """Add a member to a JSON object that has at least one, without touching the rest."""
    return body[: body.rindex(b"}")] + b"," + member + b"}"


def _rewrite(body: bytes, fields: RequestFields, changes: Changes, *, inject: bool) -> bytes:
    members = msgspec.json.decode(body, type=_Object)
    for name, value in changes.defaults.items():
        members.setdefault(name, value)
    members.update(changes.replace)
    if fields.model != changes.model:
        members["model"] = msgspec.Raw(msgspec.json.encode(changes.model))
    if inject:
        options = _stream_options(members, fields.stream_options)
        options["include_usage"] = _TRUE
        members["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)


def _stream_options(members: _Object, given: StreamOptions | None) -> _Object:
    return {} if given is None else msgspec.json.decode(members["stream_options"], type=_Object)
