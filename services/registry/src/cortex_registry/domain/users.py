"""Users and organisations: their names, what may be said of them, and which changes would lock everybody out."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator

from cortex_contracts.rights import Role
from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Identity
from cortex_registry.domain.text import is_id, require_storable

MAX_USERNAME = 64
MAX_NAME = 128
_PUNCTUATION = frozenset("._-@+")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation. Users belong to one, keys may."""

    id: str
    version: int
    name: str
    created_at: datetime
    updated_at: datetime
    users: int = 0
    """How many belong to it; as of the reading."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may administer."""

    id: str
    version: int
    username: str
    display_name: str
    role: Role
    org_id: str | None
    must_change_password: bool
    disabled_at: datetime | None
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_admin(self) -> bool:
        """Whether this user can administer now."""
        return self.role is Role.ADMIN and self.disabled_at is None


def name_key(name: str) -> str:
    """What two names that people take for the same have in common: normalised, case folded."""
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return unicodedata.normalize("NFKC", folded)


def normal_username(value: str) -> str:
    """The user name as it is stored.

    Raises:
        ValueError: empty, too long, or not made of letters, digits and . _ - @ + only.
    """
    name = unicodedata.normalize("NFKC", value).strip()
    if not 1 <= len(name) <= MAX_USERNAME:
        raise ValueError(f"a user name has 1 to {MAX_USERNAME} characters")
    if not name[0].isalnum() or not all(_is_word(character) for character in name):
        raise ValueError("a user name starts with a letter or digit and has letters, digits and . _ - @ + only")
    return name


def normal_name(value: str) -> str:
    """A name that people read: normalised, one line, without invisible characters.

    Raises:
        ValueError: empty, too long, or with invisible characters.
    """
    name = unicodedata.normalize("NFKC", value).strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters")
    if any(unicodedata.category(character) in _INVISIBLE for character in name):
        raise ValueError("a name has no control, direction or other invisible characters")
    return name


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in _PUNCTUATION


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value

    @field_validator("username", check_fields=False)
    @classmethod
    def _username(cls, value: str | None) -> str | None:
        return normal_username(value) if value is not None else None

    @field_validator("name", check_fields=False)
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return normal_name(value) if value is not None else None

    @field_validator("display_name", check_fields=False)
    @classmethod
    def _display_name(cls, value: str | None) -> str | None:
        return normal_name(value) if value else value

    @field_validator("org_id", check_fields=False)
    @classmethod
    def _org_id(cls, value: str | None) -> str | None:
        if value is not None and not is_id(value):
            raise ValueError("org_id is the id of an organisation")
        return value


Text = Annotated[str, StringConstraints(max_length=512)]


class OrgSpecification(_Body):
    """A new organisation."""

    name: Text = Field(examples=["Research"])


def _no_default(schema: dict[str, Any]) -> None:
    """A field that is left out of a change stays as it is: what stands for that in the code is no default."""
    schema.pop("default", None)


class OrgPatch(_Body):
    """What to change of an organisation; a field that is left out stays."""

    name: Text = Field(default="", examples=["Research and Development"], json_schema_extra=_no_default)


class UserSpecification(_Body):
    """A new user, who gets a one-time password."""

    username: Text = Field(examples=["alice"], description="Unique whatever its case; letters, digits and . _ - @ +")
    display_name: Text = Field(default="", examples=["Alice Example"])
    role: Role = Field(default=Role.VIEWER, examples=["operator"])
    org_id: Text | None = Field(default=None, description="The organisation the user belongs to.")


class UserPatch(_Body):
    """What to change of a user; a field that is left out stays."""

    username: Text = Field(default="", examples=["alice"], json_schema_extra=_no_default)
    display_name: Text = Field(default="", examples=["Alice Example"], json_schema_extra=_no_default)
    role: Role = Field(default=Role.VIEWER, examples=["viewer"], json_schema_extra=_no_default)
    org_id: Text | None = Field(
        default=None, description="null takes the user out of the organisation.", json_schema_extra=_no_default
    )
    disabled: bool = Field(
        default=False,
        description="A disabled user cannot sign in and has no session.",
        json_schema_extra=_no_default,
    )


def patched(user: User, patch: UserPatch, now: datetime) -> User:
    """The next version of the user; the same object when the patch changes nothing."""
    given: dict[str, Any] = patch.model_dump(exclude_unset=True)
    disabled = given.pop("disabled", None)
    if disabled is not None and disabled is not (user.disabled_at is not None):
        given["disabled_at"] = now if disabled else None
    changed = {field: value for field, value in given.items() if value != getattr(user, field)}
    return replace(user, **changed, version=user.version + 1, updated_at=now) if changed else user


def check_still_governed(before: User, after: User | None, *, by: Identity, other_admins: int) -> None:
    """Refuse what would leave nobody to administer, or what somebody would do to themselves by mistake.

    Args:
        before: the user as it is.
        after: the user as it would be; None: deleted.
        by: who asks.
        other_admins: how many enabled administrators there are besides.

    Raises:
        DomainError: 409 `own_account` or `last_admin`.
    """
    if by.user_id == before.id:
        if after is None or after.disabled_at is not None:
            raise DomainError("own_account", "Nobody can delete or disable their own account.", status=409)
        if after.role is not before.role:
            raise DomainError("own_account", "Nobody can change their own role.", status=409)
    if before.is_admin and (after is None or not after.is_admin) and other_admins == 0:
        message = f"{before.username} is the last enabled administrator: make another one first."
        raise DomainError("last_admin", message, status=409)


def check_org_is_empty(org: Org, *, users: int, keys: int) -> None:
    """Refuse to delete an organisation that something belongs to.

    Raises:
        DomainError: 409 `org_not_empty`, with the numbers.
    """
    if users or keys:
        message = f"{org.name} has {users} users and {keys} API keys that are not revoked: move or delete them first."
        raise DomainError("org_not_empty", message, status=409, details={"users": users, "keys": keys})


def check_owns_no_keys(user: User, keys: int) -> None:
    """Refuse to delete a user whose API keys still work.

    Raises:
        DomainError: 409 `user_has_keys`, with the number.
    """
    if keys:
        message = f"{user.username} owns {keys} API keys that are not revoked: revoke them first, or disable the user."
        raise DomainError("user_has_keys", message, status=409, details={"keys": keys})


def describe_user(user: User) -> dict[str, JsonValue]:
    """What the audit log keeps of a user."""
    return {
        "username": user.username,
        "display_name": user.display_name,
        "role": user.role.value,
        "org_id": user.org_id,
        "disabled_at": user.disabled_at.isoformat() if user.disabled_at is not None else None,
        "must_change_password": user.must_change_password,
    }


def changes_of(before: User, after: User) -> tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]]:
    """The audited fields that differ, as they were and as they are."""
    old, new = describe_user(before), describe_user(after)
    differing = [field for field in new if old[field] != new[field]]
    return {field: old[field] for field in differing}, {field: new[field] for field in differing}
