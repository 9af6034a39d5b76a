"""Organisations, users, sessions and personal tokens."""

from functools import partial

from cortex_kit.secrets import sign_in_proof
from cortex_registry.adapters.identity_passwords import ArgonPasswords, HashCost
from cortex_registry.adapters.identity_sessions import PostgresSessions, PostgresSignIns, PostgresTokens
from cortex_registry.adapters.identity_users import PostgresOrgs, PostgresUsers
from cortex_registry.domain.sessions import Lifetimes
from cortex_registry.domain.throttle import ThrottlePolicy
from cortex_registry.entrypoints.authenticators import Origins, PersonalToken, SessionCookie
from cortex_registry.entrypoints.routes.identity import PUBLIC, AuthRoutes, OwnerRoutes, TokenRoutes
from cortex_registry.entrypoints.routes.orgs import OrgRoutes
from cortex_registry.entrypoints.routes.users import UserRoutes
from cortex_registry.handlers.identity_credentials import Credentials
from cortex_registry.handlers.identity_links import SignInLinks
from cortex_registry.handlers.identity_sign_in import SignIn, SignInRules, SignInStores
from cortex_registry.handlers.identity_tokens import TokenService
from cortex_registry.handlers.identity_users import OrgService, UserService
from cortex_registry.settings import Settings
from cortex_registry.wiring.core import Core, Part

BASE_S = 1.0


def identity_part(core: Core) -> Part:
    """Routes of identity, and the authenticators that all routes ask."""
    settings, clock, database = core.settings, core.clock, core.database
    rules = _rules(settings)
    sessions, tokens, users = PostgresSessions(database), PostgresTokens(database), PostgresUsers(database)
    passwords = ArgonPasswords(_cost(settings))
    credentials = Credentials(
        sessions, tokens, lifetimes=rules.lifetimes, clock=clock, remember_s=settings.credentials_cache_s
    )
    stores = SignInStores(users, sessions, PostgresSignIns(database), passwords)
    sign_in = SignIn(stores, rules, clock=clock, forget=credentials.forget)
    prove = partial(sign_in_proof, settings.secret_key)
    links = SignInLinks(users, passwords, sign_in, clock=clock, prove=prove)
    user_service = UserService(users, passwords, clock=clock, forget=credentials.forget)
    origins = Origins(settings.allowed_origins)
    routes = (
        AuthRoutes(sign_in, links, origins, always_secure=settings.cookie_secure).router,
        TokenRoutes(TokenService(tokens, clock=clock, forget=credentials.forget)).router,
        OwnerRoutes(user_service).router,
        UserRoutes(user_service).router,
        OrgRoutes(OrgService(PostgresOrgs(database), clock=clock)).router,
    )
    return Part(
        routers=tuple(router() for router in routes),
        tasks={"identity-sweep": sign_in.sweep},
        authenticators=(PersonalToken(credentials), SessionCookie(credentials, origins)),
        public=PUBLIC,
    )


def _rules(settings: Settings) -> SignInRules:
    longest, window = settings.login_longest_wait_s, settings.login_window_s
    return SignInRules(
        Lifetimes(settings.session_idle_s, settings.session_lifetime_s),
        by_user=ThrottlePolicy(settings.login_free_attempts, BASE_S, longest, window),
        by_address=ThrottlePolicy(settings.login_free_attempts_per_address, BASE_S, longest, window),
    )


def _cost(settings: Settings) -> HashCost:
    return HashCost(
        settings.password_time_cost,
        settings.password_memory_kib,
        settings.password_parallelism,
        settings.password_hashes_at_once,
    )
