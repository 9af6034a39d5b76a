"""The state folder of one engine process: what was asked for, who runs it, how it ended."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from cortex_orchestrator.adapters import shim
from cortex_orchestrator.adapters.log_lines import LineSplitter
from cortex_orchestrator.domain.observed import Exit, Observed, Phase, parse_labels

TAIL_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """The shim and the engine as the shim recorded them; identities tell them from later holders of their pids."""

    pid: int
    identity: str
    engine_pid: int
    engine_identity: str | None
    started_at: datetime

    @property
    def alive(self) -> bool:
        return shim.process_identity(self.pid) == self.identity

    def signal(self, signum: signal.Signals) -> bool:
        """Signal the shim, which passes it on; False when it is gone."""
        return _signal(self.pid, self.identity, signum)

    def destroy(self) -> None:
        """Kill both without a farewell: for a shim that no longer obeys, and for an engine whose shim is gone."""
        _signal(self.pid, self.identity, signal.SIGKILL)
        if self.engine_identity is not None:
            _signal(self.engine_pid, self.engine_identity, signal.SIGKILL)


def _signal(pid: int, identity: str, signum: signal.Signals) -> bool:
    """Signal exactly the process that was meant, even if its pid has been given away meanwhile."""
    try:
        if not hasattr(os, "pidfd_open"):
            if shim.process_identity(pid) != identity:
                return False
            os.kill(pid, signum)
            return True
        descriptor = os.pidfd_open(pid)
        try:
            if shim.process_identity(pid) != identity:
                return False
            signal.pidfd_send_signal(descriptor, signum)
            return True
        finally:
            os.close(descriptor)
    except ProcessLookupError:
        return False


class ReplicaFolder:
    """Reads and writes one state folder. Blocking, but only on small local files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, launch: dict[str, object]) -> None:
        """Make the folder, for our eyes only; fails when it exists."""
        self.path.mkdir(mode=0o700, parents=True)
        shim.write_json(self.path / shim.LAUNCH, launch)

    def launch(self) -> dict[str, object] | None:
        return self._read(shim.LAUNCH)

    def running(self) -> Running | None:
        """What the shim wrote; it may be dead by now."""
        content = self._read(shim.SHIM)
        if content is None:
            return None
        return Running(
            pid=int(cast(int, content["pid"])),
            identity=str(content["identity"]),
            engine_pid=int(cast(int, content["engine_pid"])),
            engine_identity=cast("str | None", content["engine_identity"]),
            started_at=datetime.fromtimestamp(cast(float, content["started_at"]), UTC),
        )

    def exit(self) -> tuple[Exit, datetime] | None:
        content = self._read(shim.EXIT)
        if content is None:
            return None
        end = Exit(cast(int, content["code"]), bool(content["oom_killed"]))
        return end, datetime.fromtimestamp(cast(float, content["finished_at"]), UTC)

    def observe(self) -> Observed | None:
        """The replica as it is now; None when the folder is not one of ours or half removed."""
        launch = self.launch()
        identity = parse_labels(cast("dict[str, str]", launch["labels"])) if launch else None
        if launch is None or identity is None:
            return None
        running = self.running()
        alive = running is not None and running.alive
        ended = self.exit()  # read after the liveness check: a shim writes it before it dies
        phase = Phase.CREATED
        if ended is not None or (running is not None and not alive):
            phase = Phase.EXITED
        elif alive:
            phase = Phase.RUNNING
        end, finished_at = ended or (Exit(None) if phase is Phase.EXITED else None, None)
        return Observed(
            identity=identity,
            container=str(launch["name"]),
            incarnation=str(launch["incarnation"]),
            phase=phase,
            endpoint=f"http://127.0.0.1:{launch['port']}" if phase is Phase.RUNNING else None,
            gpus=tuple(cast("list[int]", launch["gpus"])),
            exit=end,
            started_at=running.started_at if running else None,
            finished_at=finished_at,
            created_at=_moment(launch.get("created_at")),
        )

    def tail(self, lines: int) -> Sequence[str]:
        """The last lines of the output, reaching into the rotated file when needed."""
        data = b""
        for name in (shim.LOG, f"{shim.LOG}.1"):
            data = _last_bytes(self.path / name, TAIL_BYTES - len(data)) + data
            if data.count(b"\n") >= lines or len(data) >= TAIL_BYTES:
                break
        splitter = LineSplitter()
        whole = splitter.feed(data.decode(errors="replace")) + splitter.flush()
        return whole[-lines:] if lines else ()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, name: str) -> dict[str, object] | None:
        try:
            return cast("dict[str, object]", json.loads((self.path / name).read_text()))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None


def _moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, float) else None


def _last_bytes(path: Path, limit: int) -> bytes:
    if limit <= 0:
        return b""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - limit))
            return stream.read(limit)
    except FileNotFoundError:
        return b""
