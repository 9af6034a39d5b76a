"""Profiles: Cortex installations that somebody has signed in to, each with a personal token. A private file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from platformdirs import user_config_path

from cortex_cli.errors import CliError, ExitCode
from cortex_cli.shapes import as_object, parse_object
from cortex_cli.stack.files import make_private_folder, write_private

FILE_VARIABLE = "CORTEX_PROFILES"
PROFILE_VARIABLE = "CORTEX_PROFILE"
LOCAL = "local"
"""Not a profile but the absence of one: the Cortex that runs here."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An installation, and the token to use it with."""

    registry_url: str
    token: str = field(repr=False)
    username: str = ""
    token_id: str = ""
    gateway_url: str = ""


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles, and which one is used when none is named."""

    known: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    current: str | None = None

    def get(self, name: str) -> Profile:
        """Raises CliError (exit code 2) when there is no such profile."""
        if name not in self.known:
            names = ", ".join(sorted(self.known)) or "none yet"
            raise CliError(
                f"There is no profile {name} (profiles: {names}).",
                fix="make one with `cortex login --profile NAME --url URL`",
                code="profile_not_found",
                exit_code=ExitCode.USAGE,
            )
        return self.known[name]

    def chosen(self, environ: Mapping[str, str]) -> tuple[str, bool] | None:
        """The profile to use and whether this very call named it; None for the Cortex that runs here."""
        named = environ.get(PROFILE_VARIABLE)
        name = named or self.current
        return None if name in (None, LOCAL) else (str(name), bool(named))

    def put(self, name: str, profile: Profile) -> "Profiles":
        """With the profile, which becomes the current one."""
        return Profiles({**self.known, name: profile}, name)

    def use(self, name: str) -> "Profiles":
        """With another current profile. Raises CliError when there is none of that name."""
        if name == LOCAL:
            return replace(self, current=None)
        self.get(name)
        return replace(self, current=name)

    def without(self, name: str) -> "Profiles":
        """Without the profile. Raises CliError when there is none of that name."""
        self.get(name)
        rest = {other: profile for other, profile in self.known.items() if other != name}
        return Profiles(rest, self.current if self.current != name else None)


def profiles_file(environ: Mapping[str, str]) -> Path:
    """CORTEX_PROFILES, or `profiles.json` in the user's configuration folder."""
    chosen = environ.get(FILE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_config_path("cortex", appauthor=False) / "profiles.json"


def load_profiles(path: Path) -> Profiles:
    """What the file holds; nothing when there is none.

    Raises:
        CliError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Profiles()
    except (OSError, ValueError) as error:
        raise CliError(f"The profiles in {path} cannot be read: {error}.") from error
    content = parse_object(text)
    known = {str(name): _profile(as_object(value)) for name, value in as_object(content.get("profiles")).items()}
    current = content.get("current")
    return Profiles(known, current if isinstance(current, str) and current in known else None)


def save_profiles(path: Path, profiles: Profiles) -> None:
    """Replace the file; only its owner can read it.

    Raises:
        CliError: it cannot be written.
    """
    content = {
        "current": profiles.current,
        "profiles": {name: asdict(profile) for name, profile in profiles.known.items()},
    }
    try:
        if not path.parent.is_dir():
            make_private_folder(path.parent)
        write_private(path, json.dumps(content, indent=1))
    except OSError as error:
        raise CliError(f"The profiles cannot be kept in {path}: {error.strerror or error}.") from error


def _profile(content: Mapping[str, object]) -> Profile:
    fields = ("registry_url", "token", "username", "token_id", "gateway_url")
    return Profile(**{name: str(content.get(name) or "") for name in fields})
