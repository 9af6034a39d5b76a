"""The fields of a key."""

from collections.abc import Mapping

from cortex_console.components.forms import Field
from cortex_console.domain.api_keys import PRIORITIES, SCOPES, ApiKey, Names, day_of

_LIMITS = (
    ("requests_per_minute", "Requests per minute"),
    ("tokens_per_minute", "Tokens per minute"),
    ("max_concurrent_streams", "Streams at once"),
    ("tokens_per_month", "Tokens per month"),
)


def fields_of(key: ApiKey | None, models: Mapping[str, str], names: Names | None) -> list[Field]:
    """With `names` the owner can be chosen, which is for administrators."""
    chosen = key.several("models") if key else []
    offered = {name: name for name in [*models, *(one for one in chosen if one not in models)]}
    networks = ", ".join(key.several("ip_allowlist")) if key else ""
    ends = day_of(key.fields.get("expires_at")) if key else ""
    priority = str(key.fields.get("priority")) if key else "interactive"
    fields = [
        Field("name", "Name", value=key.name if key else "", required=True, hint="Where it is used"),
        *(_owner(key, names) if names is not None else ()),
        Field("models", "Models", "several", chosen, "None chosen: all of them", offered),
        Field("scopes", "Opens", "several", key.several("scopes") if key else ["*"], "", SCOPES),
        Field("expires_at", "Expires at the end of", "date", ends, "A day of UTC; empty: never" if names else ""),
    ]
    for name, label in _LIMITS:
        fields.append(Field(name, label, "number", key.fields.get(name) if key else None, "Empty: no limit"))
    fields.append(
        Field("ip_allowlist", "Only from", value=networks, hint="Like 10.0.0.0/8, 192.0.2.7; empty: anywhere")
    )
    fields.append(Field("priority", "Priority", "choice", priority, "", PRIORITIES))
    return fields


def _owner(key: ApiKey | None, names: Names) -> tuple[Field, Field]:
    nobody = {"": "Nobody"}
    users, orgs = nobody | dict(names.users), {"": "That of the user"} | dict(names.organisations)
    return (
        Field("user_id", "User", "choice", key.user_id if key else "", "Whose key it is", users),
        Field("org_id", "Organisation", "choice", key.org_id if key else "", "Whose budget it uses", orgs),
    )
