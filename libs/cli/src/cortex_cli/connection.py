"""Where the commands find a running Cortex: environment variables, then the ready file in the home folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_cli.errors import CliError, not_running
from cortex_cli.shapes import parse_object

REGISTRY_URL = "CORTEX_REGISTRY_URL"
ADMIN_TOKEN = "CORTEX_ADMIN_TOKEN"
GATEWAY_URL = "CORTEX_GATEWAY_URL"
API_KEY = "CORTEX_API_KEY"
NATS_URL = "CORTEX_NATS_URL"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and the token it wants."""

    url: str
    token: str = field(repr=False)


class Connection:
    """Resolves each address when it is asked for: environment first, ready file second."""

    def __init__(self, environ: Mapping[str, str], ready_file: Path) -> None:
        self._environ = environ
        self._ready = read_ready(ready_file)

    def registry(self) -> Endpoint:
        """The admin API.

        Raises:
            CliError: nothing is known of one (exit code 3), or of its token.
        """
        return self._endpoint((REGISTRY_URL, "registry_url"), (ADMIN_TOKEN, "admin_token"))

    def gateway(self) -> Endpoint:
        """The OpenAI-compatible API.

        Raises:
            CliError: as for `registry`.
        """
        return self._endpoint((GATEWAY_URL, "gateway_url"), (API_KEY, "api_key"))

    def nats(self) -> str:
        """Address with credentials.

        Raises:
            CliError: as for `registry`.
        """
        return self._value(NATS_URL, "nats_url") or _raise(not_running())

    def _endpoint(self, address: tuple[str, str], secret: tuple[str, str]) -> Endpoint:
        url = self._value(*address) or _raise(not_running())
        token = self._value(*secret)
        if not token:
            raise CliError(f"{address[0]} is set, but {secret[0]} is not.", fix=f"set {secret[0]}")
        return Endpoint(url.rstrip("/"), token)

    def _value(self, variable: str, name: str) -> str | None:
        """A token from the ready file is never sent to an address from the environment."""
        own = self._environ.get(variable)
        if own:
            return own
        if variable in (ADMIN_TOKEN, API_KEY):
            address = REGISTRY_URL if variable == ADMIN_TOKEN else GATEWAY_URL
            if self._environ.get(address):
                return None
        value = self._ready.get(name)
        return value if isinstance(value, str) else None


def read_ready(path: Path) -> dict[str, Any]:
    """The ready file of a running Cortex; empty when there is none."""
    try:
        return parse_object(path.read_text(encoding="utf-8"))
    except OSError:
        return {}


def _raise(error: CliError) -> str:
    raise error
