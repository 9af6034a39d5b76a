"""What is shown while a model loads."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cortex_cli.adapters.admin_api import Row


@contextmanager
def show_loading(name: str) -> Generator[Callable[[Row], None]]:
    """A spinner with state, reason and time on a terminal, else a line per change; on standard error, for pipes."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        begun = time.monotonic()
        yield lambda model: console.print(
            f"{time.monotonic() - begun:6.1f}s  {name}: {_state(model)}", markup=False, soft_wrap=True
        )
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda model: progress.update(task, description=f"{name}: {_state(model)}")


def _state(model: Row) -> str:
    reason = f" ({model['reason']})" if model.get("reason") else ""
    return f"{model.get('state')}{reason}"
