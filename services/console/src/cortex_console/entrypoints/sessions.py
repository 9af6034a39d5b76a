"""Signing in and out, and changing one's password: plain pages that need no script."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FunctionLoader, select_autoescape

from cortex_console import metrics
from cortex_console.adapters import cookies
from cortex_console.adapters.admin_api import AdminApi, Opened, exchange, sign_in
from cortex_console.domain.identity import Me
from cortex_console.domain.navigation import CHANGE_PASSWORD, HOME, safe_target, sign_in_address
from cortex_console.errors import ConsoleError

_TEMPLATES = files("cortex_console") / "templates"
_REASONS = {
    "ended": "Your session has ended. Sign in to go on.",
    "out": "You are signed out.",
    "changed": "Your password was changed.",
}
MAX_CODE = 200
_FOOT = "Cortex serves your own language models."


class SessionRoutes:
    """/sign-in, /sign-out, /change-password."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        assets: str,
        *,
        opening: Sequence[tuple[str, str]],
        before_end: Callable[[AdminApi], Awaitable[None]],
        always_secure: bool,
    ) -> None:
        self._client = client
        self._assets = assets
        self._opening = opening
        self._before_end = before_end
        self._always_secure = always_secure
        loader = FunctionLoader(lambda name: (_TEMPLATES / name).read_text("utf-8"))
        self._templates = Environment(loader=loader, autoescape=select_autoescape(default=True))

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/sign-in", self.form, methods=["GET"])
        router.add_api_route("/sign-in", self.sign_in, methods=["POST"])
        router.add_api_route("/sign-in/link", self.link, methods=["GET"])
        router.add_api_route("/sign-in/link", self.use_link, methods=["POST"])
        router.add_api_route("/sign-out", self.sign_out, methods=["POST"])
        router.add_api_route(CHANGE_PASSWORD, self.password_form, methods=["GET"])
        router.add_api_route(CHANGE_PASSWORD, self.change_password, methods=["POST"])
        return router

    async def form(self, request: Request) -> Response:
        """The form to sign in with."""
        notice = _REASONS.get(request.query_params.get("reason", ""), "")
        return self._sign_in_page(safe_target(request.query_params.get("next")), notice=notice)

    async def sign_in(self, request: Request) -> Response:
        """Sign in and go on to where one wanted to be."""
        form = await request.form()
        username, target = _text(form.get("username")), safe_target(_text(form.get("next")))
        try:
            opened = await sign_in(self._client, username, _text(form.get("password")), cookies.visitor(request))
        except ConsoleError as error:
            metrics.SIGN_INS.labels("refused").inc()
            return self._sign_in_page(target, username=username, error=error)
        return self._welcome(request, opened, target)

    async def link(self, request: Request) -> Response:
        """A page with one button, so that nothing that only looks at a link uses it up."""
        return self._link_page(request.query_params.get("code", "")[:MAX_CODE])

    async def use_link(self, request: Request) -> Response:
        """Sign in by the code of a link."""
        form = await request.form()
        code, new, again = (_text(form.get(name)) for name in ("code", "new", "again"))
        if new != again:
            return self._link_page(code, choose=True, error="The new password and its repetition differ.", status=400)
        try:
            opened = await exchange(self._client, code, new or None, cookies.visitor(request))
        except ConsoleError as error:
            if error.code == "new_password_required":
                return self._link_page(code, choose=True, username=str(error.details.get("username") or ""))
            if error.status == 422:
                return self._link_page(code, choose=True, error=_sentence(error), status=422)
            metrics.SIGN_INS.labels("refused").inc()
            return self._sign_in_page(HOME, error=error)
        return self._welcome(request, opened, HOME)

    def _link_page(
        self, code: str, *, choose: bool = False, username: str = "", error: str = "", status: int = 200
    ) -> Response:
        lead = f"You are {username}. Choose a password of your own." if username else "Choose a password of your own."
        return self._page(
            "link.html",
            "Welcome to Cortex",
            lead=lead if choose else "This link signs you in once.",
            code=code,
            choose=choose,
            username=username,
            error=error,
            status=status,
        )

    async def sign_out(self, request: Request) -> Response:
        """End the session, here and at the registry."""
        api = self._api(request)
        if api is not None:
            await self._before_end(api)
            try:
                await api.post("/auth/logout")
            except ConsoleError as error:
                if error.status == 0 or error.status >= 500:
                    return self._page(
                        "sign_in.html", "Not signed out", error=error.message, target=HOME, username="", status=503
                    )
        response = RedirectResponse(sign_in_address(reason="out"), 303)
        cookies.forget(response, secure=self._secure(request))
        return response

    async def password_form(self, request: Request) -> Response:
        """The form to change one's password with."""
        me = await self._me(request)
        return RedirectResponse(sign_in_address(CHANGE_PASSWORD), 303) if me is None else self._password_page(me)

    async def change_password(self, request: Request) -> Response:
        """Change it; the session goes on under a new secret."""
        api, me = self._api(request), await self._me(request)
        if api is None or me is None:
            return RedirectResponse(sign_in_address(), 303)
        form = await request.form()
        if form.get("new") != form.get("again"):
            return self._password_page(me, error="The new password and its repetition differ.")
        await self._before_end(api)
        try:
            opened = await api.change_password(_text(form.get("current")), _text(form.get("new")))
        except ConsoleError as error:
            return self._password_page(me, error=_sentence(error), status=error.status or 503)
        response = RedirectResponse(HOME, 303)
        cookies.hand_over(response, opened, secure=self._secure(request))
        return response

    def _welcome(self, request: Request, opened: Opened, target: str) -> Response:
        metrics.SIGN_INS.labels("accepted").inc()
        must = bool(opened.me.get("must_change_password"))
        response = RedirectResponse(CHANGE_PASSWORD if must else target, 303)
        cookies.hand_over(response, opened, secure=self._secure(request))
        return response

    def _api(self, request: Request) -> AdminApi | None:
        secrets = cookies.read(request)
        return None if secrets is None else AdminApi(self._client, secrets, cookies.visitor(request))

    async def _me(self, request: Request) -> Me | None:
        api = self._api(request)
        if api is None:
            return None
        try:
            return Me.of(await api.get("/auth/me"))
        except ConsoleError:
            return None

    def _secure(self, request: Request) -> bool:
        return self._always_secure or request.url.scheme == "https"

    def _sign_in_page(
        self, target: str, *, username: str = "", notice: str = "", error: ConsoleError | None = None
    ) -> Response:
        status = 200 if error is None else error.status or 503
        response = self._page(
            "sign_in.html",
            "Sign in to Cortex",
            target=target,
            username=username,
            notice=notice,
            error=_sentence(error) if error else "",
            status=status,
        )
        if error is not None and error.retry_after_s is not None:
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    def _password_page(self, me: Me, *, error: str = "", status: int = 200) -> Response:
        lead = (
            "You signed in with a one-time password. Choose one of your own."
            if me.must_change_password
            else "All your other sessions end."
        )
        return self._page(
            "change_password.html",
            "Change your password",
            lead=lead,
            must=me.must_change_password,
            username=me.username,
            error=error,
            status=status if not error else max(status, 400),
        )

    def _page(self, template: str, title: str, *, status: int = 200, **values: Any) -> Response:
        shown = {"title": title, "assets": self._assets, "opening": self._opening, "foot": _FOOT} | values
        html = self._templates.get_template(template).render(shown)
        return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _sentence(error: ConsoleError) -> str:
    if error.fields:
        return " ".join(field.message for field in error.fields)
    if error.code == "too_many_attempts" and error.retry_after_s is not None:
        return f"{error.message} Wait {error.retry_after_s} s."
    return error.message
