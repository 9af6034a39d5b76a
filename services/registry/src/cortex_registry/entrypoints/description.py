"""What OpenAPI says beyond what FastAPI finds out: problems, sign-in, preconditions, names of operations, tags."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import RIGHT
from cortex_registry.entrypoints.guards import ADMIN
from cortex_registry.entrypoints.idempotency import UNREPEATED
from cortex_registry.entrypoints.problems import MEDIA_TYPE, PROBLEM_SCHEMA

DESCRIPTION = """\
Models, API keys, people, usage and events of one Cortex installation.

**Errors** are RFC 9457 problem details. Branch on `code`, which is stable; `detail` is for humans; `errors` lists the
fields of a refused body.

**Lost updates.** Answers that show one versioned thing carry an `ETag`. Send it back as `If-Match`, and a write that
would overwrite somebody else's change is refused with 412 `precondition_failed`, which names the present version.

**Repetition.** Any POST takes an `Idempotency-Key` (1 to 128 visible ASCII characters). The same request with the same
key is carried out once within 24 hours; a repetition gets the first answer again, with `Idempotent-Replayed: true`.

**Lists** that can grow answer `{"items": [...], "next": cursor}`; give the cursor as `after`.
"""

TAGS: Mapping[str, str] = {
    "auth": "Signing in and out, one's own account, sessions and tokens.",
    "users": "People and their roles.",
    "orgs": "Organisations that people and keys belong to.",
    "keys": "API keys of the clients of the gateway.",
    "models": "Models: what is asked for, what is observed, and why.",
    "recipes": "Configurations to make models from.",
    "upstreams": "Every endpoint that the gateway may route to, and those that others run.",
    "usage": "What was asked of the models, and how fast they answered.",
    "events": "What happened, as a log and as a stream.",
    "webhooks": "Events delivered to an address of yours, signed.",
    "audit": "Who did what, from where.",
    "deployment": "Backups, restores, and the jobs that make them.",
    "system": "Hosts, readiness, and the whole at a glance.",
}
"""Unless an area's name is missing here, its operations have a description to stand under."""

_PROBLEMS: Mapping[str, str] = {
    "400": "The request cannot be read.",
    "401": "Nobody is signed in.",
    "403": "The role of who asks lacks the right, or a browser's request lacks its CSRF token.",
    "404": "There is no such thing.",
    "409": "It contradicts what there is.",
    "412": "It has another version than `If-Match` names.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "A field, a parameter or a rule; `errors` says which.",
    "429": "Too many attempts.",
    "503": "Postgres or another service does not answer. Try again.",
}
_ALWAYS: tuple[str, ...] = ("400", "401", "403", "422", "503")
_WRITE: tuple[str, ...] = ("409", "412")
_FURTHER: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("get", "/admin/deployment/database-dump"): ("404", "409"),
    ("get", "/admin/deployment/model-manifests"): ("404", "409"),
    ("get", "/admin/models-export"): ("404",),
    ("get", "/admin/models/hf-config"): ("404", "409"),
    ("get", "/admin/models/{reference}/export"): ("409",),
    ("post", "/admin/auth/sign-in-codes"): ("404",),
    ("post", "/admin/deployment/restore-database"): ("404",),
    ("post", "/admin/upstreams/refresh-health"): ("404",),
}
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_SIGN_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": [], "csrf": []}]
_SIGN_IN_SAFE: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
_SCHEMES: Mapping[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The admin token of the settings, or a personal token.",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": "cortex_session", "description": "Set by auth/login."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "With a session, on every request but GET: the `csrf_token` that auth/login answered.",
    },
}
_KEY_PARAMETER: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Carry this request out once, however often it is sent within 24 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "example": "0f8fad5b-d9cb-469f-a165-70867728950e",
}


def install_description(app: FastAPI) -> None:
    """Let the application describe itself with what this module adds."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=None
            )
            app.openapi_schema = complete(document)
        return app.openapi_schema

    app.openapi = describe  # the way FastAPI documents


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with everything that holds for all operations alike.

    Raises:
        RuntimeError: two operations would have one name.
    """
    used: set[str] = set()
    names: dict[str, str] = {}
    for path, method, operation in _operations(document):
        operation["operationId"] = _name(operation, path, method, names)
        used.update(operation.get("tags", ()))
        if path.startswith(ADMIN):
            _secure(operation, method)
            _document_problems(path, method, operation)
            _document_parameters(operation)
            if method == "post" and not path.startswith(UNREPEATED):
                operation.setdefault("parameters", []).append(dict(_KEY_PARAMETER))
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    components["securitySchemes"] = dict(_SCHEMES)
    document["tags"] = [{"name": tag, "description": TAGS[tag]} for tag in TAGS if tag in used]
    return document


def _operations(document: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _name(operation: dict[str, Any], path: str, method: str, names: dict[str, str]) -> str:
    """`<tag>_<function>`; when two areas of one tag share a function, the path tells them apart."""
    tag = (operation.get("tags") or ["operations"])[0]
    given = str(operation["operationId"])
    stem = given.rpartition(f"_{method}")[0] if given.endswith(f"_{method}") else given
    slug = "".join(character if character.isalnum() else "_" for character in path)
    function = stem.removesuffix(slug) or stem
    name = f"{tag}_{function}"
    if name in names:
        name = f"{name}_{slug.strip('_').removeprefix('admin_').replace('__', '_')}"
    if name in names:
        raise RuntimeError(f"two operations are named {name}: {names[name]} and {method} {path}")
    names[name] = f"{method} {path}"
    return name


def _secure(operation: dict[str, Any], method: str) -> None:
    if operation.get(RIGHT) == Right.PUBLIC.value:
        operation["security"] = []
    else:
        operation["security"] = list(_SIGN_IN_SAFE if method in ("get", "head") else _SIGN_IN)


def _document_parameters(operation: dict[str, Any]) -> None:
    """A parameter can be left out, but not be null. A point in time may be a Unix time, and an empty one is none."""
    for parameter in operation.get("parameters", ()):
        schema: dict[str, Any] = parameter.get("schema", {})
        choices: list[dict[str, Any]] = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
        if parameter["in"] == "query" and any(one.get("format") == "date-time" for one in choices or [schema]):
            time = choices or [{"type": schema.pop("type"), "format": schema.pop("format")}]
            choices = [
                *time,
                {"type": "number", "description": "Unix time, seconds"},
                {"type": "string", "maxLength": 0},
            ]
        if len(choices) == 1:
            parameter["schema"] = {**choices[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
        elif choices:
            schema["anyOf"] = choices


def _document_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    statuses = list(_ALWAYS)
    if "{" in path:
        statuses.append("404")
    if method not in ("get", "head"):
        statuses += _WRITE
        if method == "post" or "requestBody" in operation:
            statuses += ("413", "415")
    if "/auth/" in path:
        statuses.append("429")
    statuses += _FURTHER.get((method, path), ())
    responses: dict[str, Any] = operation.setdefault("responses", {})
    for status in sorted(statuses):
        given: dict[str, Any] = responses.get(status, {})
        description = given.get("description")
        if description in (None, "Validation Error"):
            description = _PROBLEMS[status]
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[status] = {**given, "description": description, "content": content}
