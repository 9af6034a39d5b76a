"""What an administrator does with users and organisations."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cortex_contracts.events import (
    OrgCreatedV1,
    OrgDeletedV1,
    OrgUpdatedV1,
    UserCreatedV1,
    UserDeletedV1,
    UserUpdatedV1,
)
from cortex_contracts.rights import Role
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller, CredentialKind
from cortex_registry.domain.passwords import ONE_TIME_BYTES, one_time_password
from cortex_registry.domain.users import (
    Org,
    OrgPatch,
    OrgSpecification,
    User,
    UserPatch,
    UserSpecification,
    changes_of,
    check_org_is_empty,
    check_owns_no_keys,
    check_still_governed,
    describe_user,
    patched,
)
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.handlers.identity_ports import Orgs, Page, Passwords, UserChange, UserFacts, UserFilter, Users
from cortex_registry.ports import Act

log = get_logger()


@dataclass(frozen=True, slots=True)
class Owner:
    """The first administrator; the only time that the password is known."""

    user: User
    org: Org
    password: str = field(repr=False)


class UserService:
    """Commands and queries on users. `forget` is called after every change that may end somebody's rights."""

    def __init__(
        self,
        users: Users,
        passwords: Passwords,
        *,
        clock: Clock,
        forget: Callable[[], None],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._clock = clock
        self._forget = forget
        self._random_bytes = random_bytes

    async def page(self, wanted: UserFilter, page: Page) -> Sequence[User]:
        """A piece of the list, oldest first."""
        return await self._users.page(wanted, page)

    async def find_many(self, ids: Sequence[str]) -> Sequence[User]:
        """Those of the ids that there are."""
        return await self._users.find_many(ids)

    async def get(self, user_id: str) -> User:
        """Raises DomainError 404 `user_not_found`."""
        return _user(await self._users.find(user_id), user_id)

    async def create(self, specification: UserSpecification, caller: Caller) -> tuple[User, str]:
        """A user and the one-time password, which is returned here and kept nowhere."""
        user, password = self._new(specification)
        event = UserCreatedV1(id=user.id, name=user.username)
        act = Act(caller, "user.create", event, after=describe_user(user))
        await self._users.add(user, await self._passwords.hash(password), act)
        log.info("user_created", user_id=user.id, role=user.role.value)
        return user, password

    async def bootstrap(self, specification: UserSpecification, org_name: str, caller: Caller) -> Owner:
        """The first administrator with an organisation, once.

        Raises:
            DomainError: 403 `root_token_required`, 409 `owner_exists`.
        """
        if caller.identity.kind is not CredentialKind.ROOT:
            message = "Only the admin token of the settings makes the first administrator."
            raise DomainError("root_token_required", message, status=403)
        now = self._clock.now()
        user, password = self._new(specification.model_copy(update={"role": Role.ADMIN, "org_id": None}))
        org = Org(uuid7(), 1, org_name, now, now)
        acts = (
            Act(caller, "org.create", OrgCreatedV1(id=org.id, name=org.name), after={"name": org.name}),
            Act(caller, "user.bootstrap", UserCreatedV1(id=user.id, name=user.username), after=describe_user(user)),
        )
        org = await self._users.add_owner(org, acts, user, await self._passwords.hash(password))
        log.info("owner_created", user_id=user.id, org_id=org.id)
        return Owner(replace(user, org_id=org.id), org, password)

    async def update(self, user_id: str, patch: UserPatch, caller: Caller, expected: Expected) -> User:
        """Change what the patch names; who loses rights by it loses their sessions, too."""

        def decide(facts: UserFacts) -> UserChange:
            before = facts.user
            require_version(expected, before.version)
            after = patched(before, patch, self._clock.now())
            check_still_governed(before, after, by=caller.identity, other_admins=facts.other_admins)
            old, new = changes_of(before, after)
            event = UserUpdatedV1(id=after.id, name=after.username, changed=tuple(new))
            ends = after.role is not before.role or after.disabled_at is not None
            return UserChange(after, Act(caller, "user.update", event, tuple(new), old, new), ends_sessions=ends)

        user = _user(await self._users.change(user_id, decide), user_id)
        self._forget()
        log.info("user_updated", user_id=user.id)
        return user

    async def reset_password(self, user_id: str, caller: Caller, expected: Expected) -> tuple[User, str]:
        """A new one-time password, which is returned here and kept nowhere; ends the user's sessions."""
        password = self._password()
        known = await self._passwords.hash(password)

        def decide(facts: UserFacts) -> UserChange:
            require_version(expected, facts.user.version)
            if facts.user.id == caller.identity.user_id:
                message = "Change your own password with POST /admin/auth/password."
                raise DomainError("own_account", message, status=409)
            now = self._clock.now()
            user = replace(facts.user, must_change_password=True, version=facts.user.version + 1, updated_at=now)
            event = UserUpdatedV1(id=user.id, name=user.username, changed=("password",))
            act = Act(caller, "user.reset_password", event, event.changed)
            return UserChange(user, act, password_hash=known, ends_sessions=True)

        user = _user(await self._users.change(user_id, decide), user_id)
        self._forget()
        log.info("user_password_reset", user_id=user.id)
        return user, password

    async def delete(self, user_id: str, caller: Caller, expected: Expected) -> None:
        """For ever, with sessions and personal tokens. Raises DomainError 409 `user_has_keys`, `last_admin`, …"""

        def decide(facts: UserFacts) -> Act:
            user = facts.user
            require_version(expected, user.version)
            check_still_governed(user, None, by=caller.identity, other_admins=facts.other_admins)
            check_owns_no_keys(user, facts.live_keys)
            return Act(caller, "user.delete", UserDeletedV1(id=user.id, name=user.username), before=describe_user(user))

        if not await self._users.remove(user_id, decide):
            raise _no_user(user_id)
        self._forget()
        log.info("user_deleted", user_id=user_id)

    def _new(self, specification: UserSpecification) -> tuple[User, str]:
        now = self._clock.now()
        user = User(
            id=uuid7(),
            version=1,
            username=specification.username,
            display_name=specification.display_name,
            role=specification.role,
            org_id=specification.org_id,
            must_change_password=True,
            disabled_at=None,
            last_login_at=None,
            created_at=now,
            updated_at=now,
        )
        return user, self._password()

    def _password(self) -> str:
        return one_time_password(self._random_bytes(ONE_TIME_BYTES))


class OrgService:
    """Commands and queries on organisations."""

    def __init__(self, orgs: Orgs, *, clock: Clock) -> None:
        self._orgs = orgs
        self._clock = clock

    async def page(self, query: str | None, page: Page) -> Sequence[Org]:
        """A piece of the list, oldest first."""
        return await self._orgs.page(query, page)

    async def find_many(self, ids: Sequence[str]) -> Sequence[Org]:
        """Those of the ids that there are."""
        return await self._orgs.find_many(ids)

    async def get(self, org_id: str) -> Org:
        """Raises DomainError 404 `org_not_found`."""
        return _org(await self._orgs.find(org_id), org_id)

    async def create(self, specification: OrgSpecification, caller: Caller) -> Org:
        """A new organisation. Raises DomainError 409 `org_name_taken`."""
        now = self._clock.now()
        org = Org(uuid7(), 1, specification.name, now, now)
        event = OrgCreatedV1(id=org.id, name=org.name)
        await self._orgs.add(org, Act(caller, "org.create", event, after={"name": org.name}))
        log.info("org_created", org_id=org.id)
        return org

    async def update(self, org_id: str, patch: OrgPatch, caller: Caller, expected: Expected) -> Org:
        """Rename it. Raises DomainError 409 `org_name_taken`."""

        def decide(before: Org) -> tuple[Org, Act]:
            require_version(expected, before.version)
            event = OrgUpdatedV1(id=before.id, name=patch.name or before.name, changed=("name",))
            act = Act(caller, "org.update", event, ("name",), {"name": before.name}, {"name": event.name})
            if event.name == before.name:
                return before, act
            return replace(before, name=event.name, version=before.version + 1, updated_at=self._clock.now()), act

        org = _org(await self._orgs.change(org_id, decide), org_id)
        log.info("org_updated", org_id=org.id)
        return org

    async def delete(self, org_id: str, caller: Caller, expected: Expected) -> None:
        """For ever. Raises DomainError 409 `org_not_empty` with the reason."""

        def decide(org: Org, users: int, keys: int) -> Act:
            require_version(expected, org.version)
            check_org_is_empty(org, users=users, keys=keys)
            return Act(caller, "org.delete", OrgDeletedV1(id=org.id, name=org.name), before={"name": org.name})

        if not await self._orgs.remove(org_id, decide):
            raise _no_org(org_id)
        log.info("org_deleted", org_id=org_id)


def _user(user: User | None, user_id: str) -> User:
    if user is None:
        raise _no_user(user_id)
    return user


def _no_user(user_id: str) -> DomainError:
    return DomainError("user_not_found", f"There is no user {user_id!r}.", status=404)


def _org(org: Org | None, org_id: str) -> Org:
    if org is None:
        raise _no_org(org_id)
    return org


def _no_org(org_id: str) -> DomainError:
    return DomainError("org_not_found", f"There is no organisation {org_id!r}.", status=404)
