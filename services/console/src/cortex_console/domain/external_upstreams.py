"""Models that others run, as the console shows and changes them."""

from typing import Any

from cortex_console.domain.formatting import NOTHING
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.domain.states import engine_name, model_tone, task_name, verdict_tone


def upstream_row(answer: Row) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    enabled = bool(answer.get("enabled"))
    state = text(answer.get("state"), "unknown") if enabled else "off"
    name, served = text(answer.get("name")), text(answer.get("served_model_name"))
    return {
        "id": text(answer.get("id")),
        "row_name": name,
        "name": name,
        "name_href": f"/models/{text(answer.get('id'))}",
        "name_note": served,
        "engine": engine_name(text(answer.get("engine_type"))),
        "engine_kind": text(answer.get("engine_type")),
        "task": task_name(text(answer.get("task"))),
        "state": state,
        "state_tone": (model_tone(state) if enabled else verdict_tone(None)).value,
        "state_note": text(answer.get("reason")) if enabled else "requests are not routed to it",
        "endpoints": [endpoint_cell(one) for one in rows(answer.get("endpoints"))],
    }


def endpoint_cell(endpoint: Row) -> dict[str, str]:
    """One endpoint of a row."""
    verdict = text(endpoint.get("verdict"), "not probed yet")
    return {
        "url": text(endpoint.get("url")),
        "verdict": verdict,
        "tone": verdict_tone(verdict).value,
        "note": text(endpoint.get("reason"), NOTHING) if verdict == "unhealthy" else "",
    }


def urls_text(answer: Row) -> str:
    """For the form: one address a line."""
    return "\n".join(text(one.get("url")) for one in rows(answer.get("endpoints")))


def specification(values: dict[str, Any]) -> dict[str, Any]:
    """The registry's words for what the form holds; an endpoint that stays keeps its key unless a new one is given."""
    key, theirs = values["api_key"], values["served_name"] or None
    endpoints: list[dict[str, Any]] = []
    for url in str(values["endpoints"]).split():
        endpoint: dict[str, Any] = {"url": url, "served_name": theirs}
        if key:
            endpoint["api_key"] = key
        endpoints.append(endpoint)
    named = {name: values[name] for name in ("served_model_name", "engine_type", "task", "enabled")}
    return named | {"name": values["name"] or None, "endpoints": endpoints}
