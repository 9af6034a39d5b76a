"""What `cortex login` and `cortex token create` share: asking for a password, and what follows from the answer."""

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import typer

from cortex_cli.adapters.sign_in import PasswordSession, Row, password_session
from cortex_cli.errors import CliError, ExitCode

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs in where; `new_password` is asked for when a one-time password was used."""

    url: str
    username: str
    password: str = field(repr=False)
    new_password: Callable[[], str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenWish:
    """The token to make."""

    name: str
    role: str | None = None
    days: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As the admin API takes it."""
        expires = (datetime.now(UTC) + timedelta(days=self.days)).isoformat() if self.days else None
        return {"name": self.name, "role": self.role, "expires_at": expires}


async def make_token(credentials: Credentials, wish: TokenWish) -> Row:
    """Sign in, change a one-time password, make the token, sign out.

    Raises:
        CliError: the registry refuses.
    """
    async with password_session(credentials.url) as session:
        opened = await session.open(credentials.username, credentials.password)
        try:
            if opened.get("must_change_password"):
                await session.change_password(credentials.password, credentials.new_password())
            return await session.make_token(wish.body)
        finally:
            await _close(session)


async def _close(session: PasswordSession) -> None:
    try:
        await session.close()
    except CliError:
        return  # it ends by itself; what matters is done, or failed louder


def ask_password(username: str, *, from_stdin: bool) -> str:
    """The password, typed or from the first line of standard input. Raises CliError when there is none."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(typer.prompt(f"Password of {username}", hide_input=True, err=True))
    else:
        raise CliError(
            "There is no terminal to ask for the password.",
            fix="give it on standard input: cortex login --password-stdin < FILE",
            exit_code=ExitCode.USAGE,
        )
    if not password:
        raise CliError("The password is empty.", exit_code=ExitCode.USAGE)
    return password


def ask_new_password(*, from_stdin: bool) -> str:
    """A password in the place of a one-time one; from the second line of standard input."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CliError(
                "This is a one-time password: it must be changed.",
                fix="give the new one as the second line of standard input",
                code="password_change_required",
            )
        return password
    typer.echo("This is a one-time password. Choose your own: 12 characters or more.", err=True)
    return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True))


def require_address(url: str) -> str:
    """The address without a slash at its end; warns when a password would travel in the open.

    Raises:
        CliError: not an http address.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise CliError(f"{url} is not an address like https://cortex.example.", exit_code=ExitCode.USAGE)
    if parts.scheme == "http" and host not in _LOOPBACK:
        typer.echo(f"warning: {host} is reached by http: others on the way can read the password", err=True)
    return url.rstrip("/")


def this_machine() -> str:
    """Name for tokens made here."""
    return f"cortex on {socket.gethostname()}"[:128]
