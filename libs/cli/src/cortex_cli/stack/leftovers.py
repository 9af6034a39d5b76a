"""What a killed run left behind."""

import signal

from cortex_cli.errors import StackError
from cortex_cli.stack import records
from cortex_cli.stack.home import Home
from cortex_cli.stack.records import ProcessRecords, Record

_POSTGRES = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_OTHERS = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


async def end_leftovers(home: Home) -> list[str]:
    """End the processes of a run whose supervisor is gone: services, then Postgres, then NATS. Engines stay: the
    orchestrator adopts them. Returns the names of what was ended. Call it only while holding the home's lock.

    Raises:
        StackError: one cannot be ended.
    """
    kept = ProcessRecords(home.processes)
    living = kept.living()
    stores = ("postgres", "nats")
    await _end([record for record in living if record.name not in stores], _OTHERS)
    await _end([record for record in living if record.name == "postgres"], _POSTGRES)
    await _end([record for record in living if record.name == "nats"], _OTHERS)
    kept.clear()
    home.ready.unlink(missing_ok=True)
    return [record.name for record in living]


async def _end(processes: list[Record], signals: tuple[tuple[int, float], ...]) -> None:
    left = await records.end(processes, signals)
    if left:
        names = ", ".join(f"{record.name} (process {record.pid})" for record in left)
        raise StackError(f"Left over from an earlier run and not to be ended: {names}.")
