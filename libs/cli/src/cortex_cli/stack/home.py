"""Where one embedded Cortex keeps its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from cortex_cli.errors import StackError
from cortex_cli.stack.files import make_private_folder

HOME_VARIABLE = "CORTEX_HOME"

MODELS_FOLDER = 0o755


@dataclass(frozen=True, slots=True)
class Home:
    """Layout of the home folder. Everything below it belongs to its owner alone."""

    root: Path

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def models(self) -> Path:
        """Models root: GGUF files are put here."""
        return self.root / "models"

    @property
    def backups(self) -> Path:
        """What `cortex backup create` makes, unless CORTEX_EXPORT_DIR names another folder."""
        return self.root / "backups"

    @property
    def spool(self) -> Path:
        """Usage records the gateway keeps while NATS is away."""
        return self.root / "spool"

    @property
    def engines(self) -> Path:
        """State of the orchestrator's process runtime."""
        return self.root / "engines"

    @property
    def nats(self) -> Path:
        """JetStream store and configuration of the NATS server."""
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        """Holder of the Postgres data folder; owned by the account that runs Postgres."""
        return self.root / "postgres"

    @property
    def processes(self) -> Path:
        """Who runs: one record per process, so that the next start finds leftovers."""
        return self.root / "processes"

    @property
    def lock(self) -> Path:
        """Held by the `cortex up` that runs."""
        return self.root / "up.lock"

    @property
    def secrets(self) -> Path:
        """Generated once."""
        return self.root / "secrets.json"

    @property
    def ports(self) -> Path:
        """Ports of the last run, so that addresses stay."""
        return self.root / "ports.json"

    @property
    def ready(self) -> Path:
        """Written when everything runs, removed on stop."""
        return self.root / "ready.json"

    @property
    def api_key(self) -> Path:
        """The API key minted at the first start."""
        return self.root / "api_key.json"

    def log(self, name: str) -> Path:
        """Log file of one process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Create the folders, private to their owner.

        Raises:
            StackError: the home folder cannot be made or written.
        """
        try:
            for folder in (self.root, self.logs, self.spool, self.engines, self.nats, self.processes):
                make_private_folder(folder)
            # Nobody passes the closed home, but a container that mounts the models reads them as another user.
            self.models.mkdir(mode=MODELS_FOLDER, exist_ok=True)
            self.models.chmod(MODELS_FOLDER)
        except OSError as error:
            raise StackError(
                f"The home folder {self.root} cannot be used: {error.strerror or error}.",
                fix="choose another one with --home or CORTEX_HOME",
            ) from error


def find_home(option: Path | None, environ: Mapping[str, str]) -> Home:
    """The home of this call: `--home`, then CORTEX_HOME, then the user's state folder."""
    chosen = option or (Path(environ[HOME_VARIABLE]) if environ.get(HOME_VARIABLE) else None)
    folder = chosen if chosen is not None else user_state_path("cortex", appauthor=False)
    return Home(folder.expanduser().absolute())
