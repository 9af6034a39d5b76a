"""What the orchestrator asks of an engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import EngineType
from cortex_orchestrator.domain.spec import Command, Program, SpecError, StopPolicy


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Everything a builder may look at. `models_root` is the models folder as the engine will see it."""

    model: ModelDocumentV1
    program: Program
    models_root: str | None


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: how to find it, how to start it, how to stop it."""

    type: EngineType
    executable: str
    """Name looked up on PATH."""
    lists_flags: bool
    """True when `<executable> --help` is cheap and tells what the build can do."""
    build: Callable[[BuildRequest], Command]
    stop_policy: Callable[[int], StopPolicy]
    """From the model's stop timeout in seconds."""
    drains_itself: bool = False
    """After SIGTERM it finishes the requests in flight; another one has to be idle first."""
    help: tuple[str, ...] = ("--help",)
    """Arguments of the executable that make it list every option."""
    must_ask: Callable[[Program], bool] = lambda _: True
    """Whether the build has to be asked for its options before a model is built for it; it may take a minute."""


def model_file(request: BuildRequest, path: str) -> str:
    """A path below the models root, as the engine will see it.

    Raises:
        SpecError: no models folder is configured, or the path leaves it.
    """
    if request.models_root is None:
        raise SpecError("models_dir_missing", "This node has no models folder: set CORTEX_MODELS_DIR.")
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise SpecError("path_outside_models_root", f"{path!r} is not below the models folder.")
    return str(PurePosixPath(request.models_root) / relative)
