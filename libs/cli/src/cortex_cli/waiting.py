"""Waits until a model runs, or clearly will not."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.errors import CliError

FAILURE_PATIENCE_S = 4.0
"""A failed model is tried again by itself; one that stays failed this long is reported."""
_POLL_S = 0.2


async def until_running(
    api: AdminApi, model_id: str, *, timeout: float, on_change: Callable[[Row], None] | None = None
) -> Row:
    """Poll a model until it is `running`; `on_change` hears of every new state and reason.

    Raises:
        CliError: it stays failed, was asked to stop meanwhile, or does not run in time.
    """
    deadline = time.monotonic() + timeout
    failing_since: float | None = None
    shown: tuple[object, object] | None = None
    while True:
        model = await api.model(model_id)
        now = time.monotonic()
        if (model.get("state"), model.get("reason")) != shown:
            shown = (model.get("state"), model.get("reason"))
            if on_change is not None:
                on_change(model)
        failing_since = (failing_since or now) if model.get("state") == "failed" else None
        verdict = judge(model, failed_for_s=now - failing_since if failing_since else 0.0, left_s=deadline - now)
        if verdict is not None:
            return verdict
        await asyncio.sleep(_POLL_S)


def judge(model: Mapping[str, Any], *, failed_for_s: float, left_s: float) -> Row | None:
    """The model when it runs, None to wait on. Pure.

    Raises:
        CliError: waiting longer is no use.
    """
    name, state, reason = model.get("name"), model.get("state"), model.get("reason") or "no reason given"
    if state == "running":
        return dict(model)
    if state == "failed" and failed_for_s >= FAILURE_PATIENCE_S:
        raise CliError(f"{name} failed: {reason}", code="model_failed", fix=f"read `cortex model logs {name}`")
    if model.get("desired_state") == "stopped":
        raise CliError(f"{name} was asked to stop.", code="model_stopped", fix=f"`cortex model start {name}`")
    if left_s <= 0:
        raise CliError(
            f"{name} is still {state} ({reason}).", code="model_not_ready", fix="it goes on: see `cortex model list`"
        )
    return None
