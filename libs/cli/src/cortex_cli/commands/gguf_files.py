"""`cortex gguf scan`, `merge` and `verify`: the models library without any service."""

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cortex_cli.commands.options import JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, details, print_json, size, table
from cortex_contracts.library import EntryState, LibraryEntryV1, LibraryV1, PartsV1
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.library.scan import scan_folder
from cortex_gguf_inspector.library.verify import verify_file
from cortex_gguf_inspector.merge.job import MergeOptions, merge_file

Tell = Callable[[str, int, int], None]


def register(app: typer.Typer) -> None:
    """Add the commands to `cortex gguf`."""
    app.command(epilog="Examples: `cortex gguf scan` · `cortex gguf scan /models --json`")(scan)
    app.command(
        epilog="Examples: `cortex gguf merge big-00001-of-00003.gguf` · `cortex gguf merge folder -o out.gguf`"
    )(merge)
    app.command(epilog="Examples: `cortex gguf verify model.gguf` · `cortex gguf verify folder --no-checksum`")(verify)


def scan(
    folder: Annotated[Path, typer.Argument(help="Folder with models.", envvar="CORTEX_MODELS_DIR")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the models in a folder: what they are, whether they are complete, and which engine serves them."""
    with _refusals(), _bars(quiet=as_json) as tell:
        library = scan_folder(folder, progress=lambda done, total: tell("reading", done, total))
    if as_json:
        print_json(library.model_dump(mode="json"))
        return
    out = console()
    out.print(table(("path", "kind", "state", "quant", "size", "parameters", "engine", "remark"), _rows(library)))
    for note in library.notes:
        out.print(f"note: {note}", markup=False)
    count = f"{library.total} entries, {size(library.total_bytes)}, read in {library.seconds:.2f} s"
    out.print(count if library.complete else f"{count}; not everything was looked at", markup=False)


def merge(
    path: Annotated[Path, typer.Argument(help="Any part of a split set, or the folder with it.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write to.")] = None,
    check: Annotated[bool, typer.Option(help="Read everything back and compare it with the parts.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Make one GGUF file of a split set. Interrupted, it goes on where it was; it never replaces a file.

    llama-server needs no merged file: it loads a split set from part 1.
    """
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        stopped.set()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        with _refusals(), _bars(quiet=as_json) as tell:
            options = MergeOptions(progress=tell, stop=stopped.is_set, check=check)
            merged = merge_file(path, output, options=options)
    finally:
        signal.signal(signal.SIGINT, previous)
    shown: dict[str, Any] = {
        "path": merged.path,
        "parts": merged.parts,
        "size": merged.size,
        "sha256": merged.sha256,
        "existed": merged.existed,
        "resumed_at": merged.resumed_at,
        "seconds": round(merged.seconds, 3),
    }
    if as_json:
        print_json(shown)
    elif merged.existed:
        console().print(f"{merged.path} is there already, made of the same parts", markup=False)
    else:
        console().print(details({**shown, "size": size(merged.size), "existed": None}))


def verify(
    path: Annotated[Path, typer.Argument(help="File, any part of a set, or folder.")],
    checksum: Annotated[bool, typer.Option(help="Read every byte and show the SHA-256.")] = True,
    sha256: Annotated[str | None, typer.Option(help="What the SHA-256 of the file must be.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a model is complete and every tensor lies inside its file. Exit code 1 when something is wrong."""
    with _refusals(), _bars(quiet=as_json) as tell:
        result = verify_file(
            path,
            checksum=checksum,
            expected_sha256=sha256,
            progress=lambda done, total: tell("checksum", done, total),
        )
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        rows = [(file.path, size(file.size), file.tensors, file.sha256) for file in result.files]
        console().print(table(("file", "size", "tensors", "sha256"), rows))
    if not result.ok:
        raise CliError("\n".join(result.problems), code=GgufErrorCode.CORRUPT.value)


def _rows(library: LibraryV1) -> Sequence[Sequence[object]]:
    return [
        (
            entry.path,
            entry.kind.value,
            _state(entry.state, entry.parts),
            entry.quantization,
            size(entry.size),
            None if entry.parameters is None else f"{entry.parameters / 1e9:.2f} B",
            next((fit.engine.value for fit in entry.engines if fit.suits), None),
            _remark(entry),
        )
        for entry in library.entries
    ]


def _state(state: EntryState, parts: PartsV1 | None) -> str:
    if parts is None or parts.layout == "concatenated":
        return state.value
    return f"{state.value} {parts.present}/{parts.expected}"


def _remark(entry: LibraryEntryV1) -> str:
    """The most useful thing to know, and no more: --json has the rest."""
    if entry.state is not EntryState.READY or entry.reason:
        return f"{entry.reason} [{entry.code}]" if entry.code else entry.reason
    remarks = [f"recommended: {entry.recommendation}" if entry.recommended else entry.recommendation]
    remarks += [f"mmproj {path}" for path in entry.mmproj] + [f"draft {path}" for path in entry.drafts[:1]]
    return "; ".join(remark for remark in [*remarks, *entry.hints] if remark)


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except GgufError as error:
        stopped = error.reason is GgufErrorCode.MERGE_STOPPED
        code = ExitCode.INTERRUPTED if stopped else ExitCode.FAILED
        raise CliError(error.message, code=error.code, exit_code=code) from error


@contextmanager
def _bars(*, quiet: bool) -> Generator[Tell]:
    """Progress bars on standard error, when somebody looks at it."""
    if quiet or not sys.stderr.isatty():
        yield _silent
        return
    columns = (TextColumn("{task.description:<8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done)

        yield tell


def _silent(phase: str, done: int, total: int) -> None: ...
