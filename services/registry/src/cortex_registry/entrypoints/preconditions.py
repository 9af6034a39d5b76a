"""Conditional writes: `ETag` says which version an answer shows, `If-Match` which version a write is about.

A route takes `expected: IfMatch` and hands it to its handler, which calls `require_version` on what it has read. A route
that answers with one versioned thing calls `show_version(response, version)`.
"""

import re
from typing import Annotated

from fastapi import Depends, Header, Response

from cortex_kit.errors import DomainError
from cortex_registry.domain.versions import Expected, require_version

__all__ = ["Expected", "IfMatch", "etag", "parse_if_match", "require_version", "show_version"]

MAX_HEADER = 1024
PATTERN = r'^"[0-9]{1,18}"$'
"""What OpenAPI says of the header; a little more is understood."""
_TAG = re.compile(r'[ \t]*(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*')


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def show_version(response: Response, version: int) -> None:
    """Put the entity tag of what is answered on the answer."""
    response.headers["ETag"] = etag(version)


def parse_if_match(value: str | None) -> Expected:
    """The versions that an `If-Match` header names; None for none given and for `*`.

    A weak tag counts as its strong form, because a compressing proxy weakens ours. A tag that is not of ours names no
    version at all, so that it matches nothing.

    Raises:
        DomainError: 400 `invalid_if_match`.
    """
    if value is None or value.strip() == "*":
        return None
    tags = _tags(value) if len(value) <= MAX_HEADER else None
    if not tags:
        message = 'If-Match takes the ETag of what you have read, like "3", several of them separated by commas, or *.'
        raise DomainError("invalid_if_match", message, status=400)
    return frozenset(int(tag) for tag in tags if tag.isascii() and tag.isdecimal() and len(tag) <= 18)


def _tags(value: str) -> list[str] | None:
    """The opaque parts of a list of tags, which may themselves hold commas; None when it is not one."""
    found: list[str] = []
    position = 0
    while (tag := _TAG.match(value, position)) is not None:
        found.append(tag[1])
        if tag.end() == len(value):
            return found
        if value[tag.end()] != ",":
            return None
        position = tag.end() + 1
    return None


def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            description="Change only this version: the ETag of what was read. Another present version is a 412.",
            examples=['"3"'],
            json_schema_extra={"pattern": PATTERN},
        ),
    ] = None,
) -> Expected:
    return parse_if_match(if_match)


IfMatch = Annotated[Expected, Depends(_if_match)]
"""Parameter of a route: the versions that the caller would change."""
