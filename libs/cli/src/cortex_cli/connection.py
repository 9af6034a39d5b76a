"""Where the commands find a Cortex: a named profile, environment variables, the current profile, then the ready file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_cli.errors import CliError, not_running
from cortex_cli.profiles import Profile, Profiles
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
    """Resolves each address when it is asked for.

    A profile that this very call names (`--profile`, CORTEX_PROFILE) wins over the environment's addresses; those win
    over the current profile (`cortex profile use`); without one the ready file of the Cortex that runs here counts.
    """

    def __init__(self, environ: Mapping[str, str], ready_file: Path, profiles: Profiles | None = None) -> None:
        known = profiles or Profiles()
        chosen = known.chosen(environ)
        self.profile_name = chosen[0] if chosen is not None else None
        self._profile = known.get(chosen[0]) if chosen is not None else None
        # A named profile is meant as a whole: its token never goes to another address, nor another token to its own.
        self._environ = _without_registry(environ) if chosen is not None and chosen[1] else environ
        self._stored = _stored(self._profile, read_ready(ready_file))

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
        return self._value(NATS_URL, "nats_url") or _raise(self._unknown(NATS_URL))

    def _endpoint(self, address: tuple[str, str], secret: tuple[str, str]) -> Endpoint:
        url = self._value(*address) or _raise(self._unknown(address[0]))
        token = self._value(*secret)
        if not token:
            raise CliError(self._tokenless(address[0], secret[0]), fix=f"set {secret[0]}")
        return Endpoint(url.rstrip("/"), token)

    def _tokenless(self, address: str, secret: str) -> str:
        if self._profile is not None and not self._environ.get(address):
            return f"The profile {self.profile_name} has no {secret}."
        return f"{address} is set, but {secret} is not."

    def _unknown(self, variable: str) -> CliError:
        if self._profile is None:
            return not_running()
        return CliError(f"The profile {self.profile_name} does not say {variable}.", fix=f"set {variable}")

    def _value(self, variable: str, name: str) -> str | None:
        """A stored token is never sent to an address from the environment."""
        own = self._environ.get(variable)
        if own:
            return own
        if variable in (ADMIN_TOKEN, API_KEY):
            address = REGISTRY_URL if variable == ADMIN_TOKEN else GATEWAY_URL
            if self._environ.get(address):
                return None
        value = self._stored.get(name)
        return value if isinstance(value, str) and value else None


def _stored(profile: Profile | None, ready: dict[str, Any]) -> dict[str, Any]:
    """What is kept of addresses and tokens; the ready file completes a profile of the very Cortex that runs here."""
    if profile is None:
        return ready
    same = ready.get("registry_url") == profile.registry_url
    known: dict[str, Any] = {**ready} if same else {}
    known |= {"registry_url": profile.registry_url, "admin_token": profile.token}
    if profile.gateway_url and profile.gateway_url != known.get("gateway_url"):
        known |= {"gateway_url": profile.gateway_url, "api_key": None}
    return known


def _without_registry(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in environ.items() if name not in (REGISTRY_URL, ADMIN_TOKEN)}


def read_ready(path: Path) -> dict[str, Any]:
    """The ready file of a running Cortex; empty when there is none."""
    try:
        return parse_object(path.read_text(encoding="utf-8"))
    except OSError:
        return {}


def _raise(error: CliError) -> str:
    raise error
