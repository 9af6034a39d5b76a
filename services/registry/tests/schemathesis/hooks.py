"""Loaded by schemathesis."""

import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Each request gets an Idempotency-Key of its own: a generated one would soon stand for another request."""
    headers = case.headers
    if headers and "Idempotency-Key" in headers and len(str(headers["Idempotency-Key"])) in range(1, 129):
        key = str(headers["Idempotency-Key"])
        if key.isascii() and all("!" <= character <= "~" for character in key):
            headers["Idempotency-Key"] = str(uuid.uuid4())
    tag = str(headers.get("if-match") or "") if headers else ""
    if tag.isdecimal():
        headers["if-match"] = f'"{tag}"'  # schemathesis takes the quotes off what it makes of the pattern
