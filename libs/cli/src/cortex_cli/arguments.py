"""From command-line options to the bodies of the admin API. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cortex_cli.errors import CliError, ExitCode


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` pairs: the value is JSON when it parses as JSON (numbers, true, null, lists, objects), else text.

    Raises:
        CliError: a pair without `=` or without a key.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise CliError(f"--set {assignment} is not key=value.", exit_code=ExitCode.USAGE)
        values[key.strip()] = _value(text)
    return values


def model_body(options: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The body of a model: given options under the API's names; `--set` adds any other field and wins."""
    given = {name: value for name, value in options.items() if value is not None and value != []}
    return {**given, **parse_assignments(assignments)}


def find_model(models: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """The model somebody means: by id, then by name, then by served name or alias.

    Raises:
        CliError: none, or several, go by that name.
    """
    for matches in (
        [model for model in models if model.get("id") == wanted],
        [model for model in models if model.get("name") == wanted],
        [model for model in models if wanted in (model.get("served_model_name"), *(model.get("aliases") or ()))],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(str(model.get("id")) for model in matches)
            raise CliError(f"Several models are called {wanted}.", code="ambiguous_model", fix=f"name one by id: {ids}")
    known = ", ".join(str(model.get("name")) for model in models) or "none yet"
    raise CliError(
        f"There is no model {wanted} (models here: {known}).", code="model_not_found", fix="see `cortex model list`"
    )


def find_key(keys: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """The key somebody means: by id, or by the name or prefix of a key that is not revoked.

    Raises:
        CliError: none, or several.
    """
    by_id = [key for key in keys if key.get("id") == wanted]
    matches = by_id or [key for key in keys if not key.get("revoked_at") and wanted in (key["name"], key.get("prefix"))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(str(key.get("id")) for key in matches)
        raise CliError(f"Several keys are called {wanted}.", code="ambiguous_key", fix=f"name one by id: {ids}")
    raise CliError(f"There is no key {wanted}.", code="key_not_found", fix="see `cortex key list`")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
