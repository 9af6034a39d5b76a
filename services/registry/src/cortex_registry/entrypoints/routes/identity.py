"""Routes of signing in and out, of one's own sessions and tokens, and of the first administrator."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cortex_contracts.rights import Right, Role
from cortex_registry.domain.users import UserSpecification
from cortex_registry.entrypoints.access import CallerOf, IdentityOf, Routes
from cortex_registry.entrypoints.authenticators import (
    Origins,
    clear_session_cookies,
    is_secure,
    session_secret,
    set_session_cookies,
)
from cortex_registry.entrypoints.guards import ADMIN, REQUEST_ID
from cortex_registry.entrypoints.schemas.identity import (
    ExchangeBody,
    LoginBody,
    MeAnswer,
    NewTokenAnswer,
    OrgAnswer,
    OwnerAnswer,
    OwnerBody,
    PasswordBody,
    SessionAnswer,
    SessionList,
    SessionOpened,
    SessionsEnded,
    SignInCodeAnswer,
    SignInCodeBody,
    TokenAnswer,
    TokenBody,
    TokenList,
    UserAnswer,
)
from cortex_registry.handlers.identity_links import SignInLinks
from cortex_registry.handlers.identity_sign_in import Opened, PasswordChange, SignIn, Visitor
from cortex_registry.handlers.identity_tokens import TokenService
from cortex_registry.handlers.identity_users import UserService

LOGIN = "/auth/login"
EXCHANGE = "/auth/exchange"
PUBLIC = frozenset({("POST", f"{ADMIN}{LOGIN}"), ("POST", f"{ADMIN}{EXCHANGE}")})
MAX_USER_AGENT = 256


def _visitor(request: Request) -> Visitor:
    agent = request.headers.get("user-agent", "")[:MAX_USER_AGENT]
    agent = "".join(character for character in agent if character.isprintable())
    address = request.client.host[:64] if request.client is not None else None
    return Visitor(address, agent or None, request.scope.get(REQUEST_ID))


def _secret(request: Request) -> str | None:
    return session_secret(request.headers)


VisitorOf = Annotated[Visitor, Depends(_visitor)]
SecretOf = Annotated[str | None, Depends(_secret)]


class AuthRoutes:
    """/admin/auth."""

    def __init__(self, sign_in: SignIn, links: SignInLinks, origins: Origins, *, always_secure: bool) -> None:
        self._sign_in = sign_in
        self._links = links
        self._origins = origins
        self._always_secure = always_secure

    def router(self) -> APIRouter:
        routes = Routes("auth")
        routes.add("POST", LOGIN, self.login, Right.PUBLIC)
        routes.add("POST", EXCHANGE, self.exchange, Right.PUBLIC)
        routes.add("POST", "/auth/sign-in-codes", self.make_code, Right.USERS_WRITE, status_code=201)
        routes.add("POST", "/auth/logout", self.logout, Right.ACCOUNT, status_code=204)
        routes.add("GET", "/auth/me", self.me, Right.ACCOUNT)
        routes.add("POST", "/auth/password", self.change_password, Right.ACCOUNT)
        routes.add("GET", "/auth/sessions", self.sessions, Right.ACCOUNT)
        routes.add("DELETE", "/auth/sessions", self.end_others, Right.ACCOUNT)
        routes.add("DELETE", "/auth/sessions/{session_id}", self.end, Right.ACCOUNT, status_code=204)
        return routes.router

    async def login(self, body: LoginBody, request: Request, response: Response, visitor: VisitorOf) -> SessionOpened:
        """Open a session: sets the cookies `cortex_session` (not readable by scripts) and `cortex_csrf`.

        Too many failures of a user name or from an address are a 429 `too_many_attempts` with Retry-After.
        """
        self._origins.require_own(request.headers)
        opened = await self._sign_in.login(body.username, body.password, visitor)
        return self._hand_over(opened, request, response)

    async def exchange(
        self, body: ExchangeBody, request: Request, response: Response, visitor: VisitorOf
    ) -> SessionOpened:
        """Open a session by the code of a sign-in link, once; cookies as at `login`.

        A user who has to change their password gives `new_password`; without it they get 409 `new_password_required`, and
        the code stays good.
        """
        self._origins.require_own(request.headers)
        opened = await self._links.exchange(body.code, body.new_password, visitor)
        return self._hand_over(opened, request, response)

    async def make_code(
        self, caller: CallerOf, response: Response, body: SignInCodeBody | None = None
    ) -> SignInCodeAnswer:
        """A code for a sign-in link, good once and for ten minutes. Takes the admin token of the settings."""
        username = body.username if body is not None else None
        user, code, expires_at = await self._links.make(username, caller)
        response.headers["Cache-Control"] = "no-store"
        return SignInCodeAnswer(username=user.username, code=code, expires_at=expires_at)

    async def logout(self, request: Request, response: Response, secret: SecretOf, caller: CallerOf) -> None:
        """End the session of this request."""
        await self._sign_in.logout(secret, caller)
        clear_session_cookies(response, secure=is_secure(request, always=self._always_secure))

    async def me(self, identity: IdentityOf) -> MeAnswer:
        """Who asks, and what they may."""
        return MeAnswer.of(identity)

    async def change_password(
        self, body: PasswordBody, request: Request, response: Response, caller: CallerOf
    ) -> SessionOpened:
        """Change one's own password: a new session takes the place of this one, all others end."""
        change = PasswordChange(session_secret(request.headers), body.current_password, body.new_password)
        opened = await self._sign_in.change_password(change, _visitor(request), caller)
        return self._hand_over(opened, request, response)

    async def sessions(self, identity: IdentityOf, secret: SecretOf) -> SessionList:
        """One's own sessions, newest first."""
        found = await self._sign_in.sessions(secret, identity)
        return SessionList(items=[SessionAnswer.of(one, current=current) for one, current in found])

    async def end_others(self, secret: SecretOf, caller: CallerOf) -> SessionsEnded:
        """End all of one's sessions but the one of this request."""
        return SessionsEnded(ended=await self._sign_in.end_other_sessions(secret, caller))

    async def end(self, session_id: str, caller: CallerOf) -> None:
        """End one of one's own sessions."""
        await self._sign_in.end_session(session_id, caller)

    def _hand_over(self, opened: Opened, request: Request, response: Response) -> SessionOpened:
        set_session_cookies(response, opened, secure=is_secure(request, always=self._always_secure))
        response.headers["Cache-Control"] = "no-store"
        me = MeAnswer.of(opened.identity)
        return SessionOpened(**me.model_dump(), csrf_token=opened.csrf_token, expires_at=opened.session.expires_at)


class TokenRoutes:
    """/admin/me/tokens."""

    def __init__(self, service: TokenService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("auth")
        routes.add("POST", "/me/tokens", self.create, Right.SELF, status_code=201)
        routes.add("GET", "/me/tokens", self.list_own, Right.SELF)
        routes.add("DELETE", "/me/tokens/{token_id}", self.revoke, Right.SELF, status_code=204)
        return routes.router

    async def create(self, body: TokenBody, caller: CallerOf, response: Response) -> NewTokenAnswer:
        """Make a personal token. `token` is shown here and never again. Takes a session, not a token."""
        token, secret = await self._service.create(body.name, body.role, body.expires_at, caller)
        response.headers["Cache-Control"] = "no-store"
        return NewTokenAnswer(**TokenAnswer.of(token).model_dump(), token=secret)

    async def list_own(self, caller: CallerOf) -> TokenList:
        """One's own tokens, oldest first, without those revoked."""
        return TokenList(items=[TokenAnswer.of(token) for token in await self._service.list_own(caller)])

    async def revoke(self, token_id: str, caller: CallerOf) -> None:
        """Revoke one of one's own tokens for ever."""
        await self._service.revoke(token_id, caller)


class OwnerRoutes:
    """/admin/bootstrap-owner."""

    def __init__(self, service: UserService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("users")
        routes.add("POST", "/bootstrap-owner", self.bootstrap, Right.USERS_WRITE, status_code=201)
        return routes.router

    async def bootstrap(self, caller: CallerOf, response: Response, body: OwnerBody | None = None) -> OwnerAnswer:
        """Make the first administrator. Takes the admin token of the settings; 409 `owner_exists` ever after."""
        wanted = body or OwnerBody()
        specification = UserSpecification(username=wanted.username, role=Role.ADMIN)
        owner = await self._service.bootstrap(specification, wanted.org, caller)
        response.headers["Cache-Control"] = "no-store"
        return OwnerAnswer(
            user=UserAnswer.of(owner.user), org=OrgAnswer.of(owner.org), one_time_password=owner.password
        )
