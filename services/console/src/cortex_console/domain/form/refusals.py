"""What is wrong with a draft, by field: as typed, as the registry judges it, as names are taken."""

from collections.abc import Mapping

from cortex_console.domain.form.draft import Draft
from cortex_console.errors import ConsoleError

_FIELD_OF_CODE = {"name_taken": "served_model_name", "engine_not_available": "engine_type"}
_NAMES = "letters, digits and . _ : - are allowed, and / between parts"
_FORMS = {
    "served_model_name": _NAMES,
    "aliases": _NAMES,
    "fallbacks": _NAMES,
    "repo_id": "a repository is wanted, like Qwen/Qwen3-8B",
    "engine_image": "an image is wanted, like registry/name:tag",
    "override_tensor": "pattern=buffer is wanted, with commas between",
    "override_kv": "key=type:value is wanted, with commas between",
}


def of_error(error: ConsoleError) -> dict[str, str]:
    """Messages by field; under the empty name what belongs to none."""
    found: dict[str, str] = {}
    for one in error.fields:
        said = one.message.removeprefix("Input ").replace("String should", "should")
        if one.code == "string_pattern_mismatch":
            said = _FORMS.get(one.field.partition(".")[0], "has not the form that is wanted")
        said = said[:1].upper() + said[1:]
        found[one.field] = f"{found[one.field]} {said}" if one.field in found else said
    return found or {_FIELD_OF_CODE.get(error.code, ""): error.message}


def of_names(draft: Draft, served_name: str, taken: Mapping[str, str], own_id: str | None) -> dict[str, str]:
    """Names that another model has."""
    found: dict[str, str] = {}
    wanted = {"served_model_name": [served_name], "aliases": list(draft.values.get("aliases") or ())}
    for field, names in wanted.items():
        for name in names:
            if name and taken.get(name.lower(), own_id) != own_id:
                at = "name" if field == "served_model_name" and not draft.values.get(field) else field
                found[at] = f"Another model is served as {name}."
    return found
