"""Bodies and answers about users, organisations, sessions and personal tokens."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from cortex_contracts.base import UtcDatetime
from cortex_contracts.rights import Right, Role
from cortex_registry.domain.identity import CredentialKind, Identity
from cortex_registry.domain.sessions import AdminToken, Session
from cortex_registry.domain.text import require_storable
from cortex_registry.domain.users import Org, User, normal_name, normal_username

_ID = "01995c3e-7a00-7000-8000-000000000001"
_ONE_TIME = "4kq7m-x2nrt-hw8ca-9ydpe"
Secret = Annotated[str, StringConstraints(max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value


class LoginBody(_Body):
    """Who signs in."""

    username: Annotated[str, StringConstraints(max_length=512)] = Field(examples=["alice"])
    password: Secret = Field(examples=["a long pass phrase of yours"], repr=False)


class PasswordBody(_Body):
    """A change of one's own password."""

    current_password: Secret = Field(examples=[_ONE_TIME], repr=False)
    new_password: Secret = Field(examples=["a long pass phrase of yours"], repr=False)


class SignInCodeBody(_Body):
    """Whom to let in."""

    username: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, examples=["owner"], description="Default: the oldest administrator who may sign in."
    )


class SignInCodeAnswer(BaseModel):
    """A code that signs a user in once."""

    username: str
    code: str
    expires_at: datetime


class ExchangeBody(_Body):
    """A code, and the password that its user has to choose, if they have to."""

    code: Annotated[str, StringConstraints(max_length=512)] = Field(repr=False)
    new_password: Secret | None = Field(default=None, examples=["a long pass phrase of yours"], repr=False)


class TokenBody(_Body):
    """A new personal token."""

    name: Annotated[str, StringConstraints(max_length=512)] = Field(examples=["backup script"])
    role: Role | None = Field(default=None, examples=["viewer"], description="At most this role; default: one's own.")
    expires_at: UtcDatetime | None = Field(default=None, examples=["2030-01-01T00:00:00Z"])

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return normal_name(value)


class OwnerBody(_Body):
    """The first administrator."""

    username: Annotated[str, StringConstraints(max_length=512)] = Field(default="owner", examples=["owner"])
    org: Annotated[str, StringConstraints(max_length=512)] = Field(default="default", examples=["Example Ltd"])

    @field_validator("username")
    @classmethod
    def _username(cls, value: str) -> str:
        return normal_username(value)

    @field_validator("org")
    @classmethod
    def _org(cls, value: str) -> str:
        return normal_name(value)


class UserAnswer(BaseModel):
    """A user."""

    id: str = Field(examples=[_ID])
    version: int
    username: str = Field(examples=["alice"])
    display_name: str
    role: Role
    org_id: str | None
    disabled: bool
    disabled_at: datetime | None
    must_change_password: bool
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, user: User) -> "UserAnswer":
        return cls(**_user_fields(user))


class NewUserAnswer(UserAnswer):
    """The only answer that holds the one-time password."""

    one_time_password: str = Field(examples=[_ONE_TIME])

    @classmethod
    def made(cls, user: User, password: str) -> "NewUserAnswer":
        return cls(**_user_fields(user), one_time_password=password)


def _user_fields(user: User) -> dict[str, Any]:
    shown = set(UserAnswer.model_fields) - {"disabled"}
    return {field: getattr(user, field) for field in shown} | {"disabled": user.disabled_at is not None}


class UserList(BaseModel):
    items: list[UserAnswer]
    next: str | None = Field(description="Give it as `after` for what follows; null: that was all.")


class Named(BaseModel):
    """An id and what people call it."""

    id: str = Field(examples=[_ID])
    name: str


class NamedList(BaseModel):
    items: list[Named]


class OrgAnswer(BaseModel):
    """An organisation."""

    id: str = Field(examples=[_ID])
    version: int
    name: str = Field(examples=["Research"])
    users: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, org: Org) -> "OrgAnswer":
        return cls(**{field: getattr(org, field) for field in cls.model_fields})


class OrgList(BaseModel):
    items: list[OrgAnswer]
    next: str | None = Field(description="Give it as `after` for what follows; null: that was all.")


class OwnerAnswer(BaseModel):
    """The first administrator. The only answer that holds the one-time password."""

    user: UserAnswer
    org: OrgAnswer
    one_time_password: str = Field(examples=[_ONE_TIME])


class MeAnswer(BaseModel):
    """Who asks, and what they may."""

    kind: CredentialKind
    username: str
    role: Role
    user_id: str | None
    org_id: str | None
    must_change_password: bool
    rights: list[Right]

    @classmethod
    def of(cls, identity: Identity) -> "MeAnswer":
        return cls(
            kind=identity.kind,
            username=identity.name,
            role=identity.role,
            user_id=identity.user_id,
            org_id=identity.org_id,
            must_change_password=identity.must_change_password,
            rights=list(identity.rights),
        )


class SessionOpened(MeAnswer):
    """A session that has begun; its secret is in the cookie `cortex_session` only."""

    csrf_token: str = Field(description="Send it as X-CSRF-Token with every change; also in the cookie cortex_csrf.")
    expires_at: datetime


class SessionAnswer(BaseModel):
    """A session of the caller's."""

    id: str = Field(examples=[_ID])
    current: bool = Field(description="Whether this request came in it.")
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None

    @classmethod
    def of(cls, session: Session, *, current: bool) -> "SessionAnswer":
        shown = set(cls.model_fields) - {"current"}
        return cls(**{field: getattr(session, field) for field in shown}, current=current)


class SessionList(BaseModel):
    items: list[SessionAnswer]


class SessionsEnded(BaseModel):
    ended: int


class TokenAnswer(BaseModel):
    """A personal token without what it is made of."""

    id: str = Field(examples=[_ID])
    name: str
    prefix: str = Field(examples=["cortex-pat-Ab3x"])
    role: Role
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, token: AdminToken) -> "TokenAnswer":
        return cls(**{field: getattr(token, field) for field in TokenAnswer.model_fields})


class NewTokenAnswer(TokenAnswer):
    """The only answer that holds the token itself."""

    token: str


class TokenList(BaseModel):
    items: list[TokenAnswer]
