"""`cortex up` from its first line to its last."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping

from rich.live import Live

from cortex_cli.adapters.admin_api import AdminApi, admin_api
from cortex_cli.adapters.gateway_api import gateway_api
from cortex_cli.connection import Endpoint
from cortex_cli.errors import CliError
from cortex_cli.stack import demo, lock, owner, ready, snapshot
from cortex_cli.stack.embedded import EmbeddedStack, embedded_stack
from cortex_cli.stack.home import Home
from cortex_cli.stack.keys import ensure_key
from cortex_cli.stack.leftovers import end_leftovers
from cortex_cli.stack.process import Phase, ProcessStatus
from cortex_cli.stack.ready import Ready
from cortex_cli.stack.records import ProcessRecords
from cortex_cli.stack.supervisor import Supervisor, supervisor
from cortex_cli.stack.view import View, render, summary
from cortex_cli.waiting import until_running

_REFRESH_S = 2.0
_DEMO_S = 180.0
_SAME_MOMENT_S = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(home: Home, view: View, *, with_demo: bool, environ: Mapping[str, str]) -> None:
    """Run the stack until a signal; returns when nothing of it is left.

    Raises:
        CliError: it cannot start; whatever had started is stopped again.
    """
    home.prepare()
    with lock.hold(home.lock):
        asyncio.run(_until_signal(home, view, with_demo=with_demo, environ=environ))


async def _until_signal(home: Home, view: View, *, with_demo: bool, environ: Mapping[str, str]) -> None:
    def notify(status: ProcessStatus) -> None:
        if status.phase is Phase.RESTARTING:
            view.say(f"{status.name} {status.reason}: starting it again")

    for name in await end_leftovers(home):
        view.say(f"ended {name}, left over from a run that was killed")
    async with supervisor(ProcessRecords(home.processes), notify) as watch:
        session = asyncio.create_task(_session(home, watch, view, with_demo=with_demo, environ=environ))
        _handle_signals(session, watch, view)
        try:
            await session
        except asyncio.CancelledError:
            if not session.cancelled():
                raise


def _handle_signals(session: asyncio.Task[None], watch: Supervisor, view: View) -> None:
    """The first signal stops in good order, a further one hurries (not one of the same moment: `timeout` and `make`
    signal the process and its group)."""
    stopping_since: float | None = None

    def on_signal() -> None:
        nonlocal stopping_since
        if stopping_since is None:
            stopping_since = time.monotonic()
            session.cancel()
            view.say("stopping (once more to hurry)")
        elif time.monotonic() - stopping_since > _SAME_MOMENT_S and not watch.hurry.is_set():
            watch.hurry.set()
            view.say("hurrying")

    for number in _SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # nohup
            continue
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


async def _session(home: Home, watch: Supervisor, view: View, *, with_demo: bool, environ: Mapping[str, str]) -> None:
    async with embedded_stack(home, watch, environ, view.step) as stack:
        try:
            await stack.start()
            async with admin_api(Endpoint(stack.registry_url, stack.secrets.admin_token)) as api:
                found = await _introduce(home, stack, api, view, with_demo=with_demo)
                first = await owner.first_owner(api)
                ready.write(home.ready, found)
                view.write(summary(found))
                if first is not None:
                    view.write(owner.notice(first))
                await _show_link(stack, api, view)
                view.say(f"ready: {home.ready}")
                await _show_status(stack, api, view)
        finally:
            ready.remove(home.ready)


async def _show_link(stack: EmbeddedStack, api: AdminApi, view: View) -> None:
    """A stack without anybody to sign in runs all the same."""
    try:
        view.write(owner.link_notice(await owner.sign_in_link(api, stack.console_url)))
    except CliError as error:
        view.say(f"there is no sign-in link: {error.message} {error.fix}")


async def _introduce(home: Home, stack: EmbeddedStack, api: AdminApi, view: View, *, with_demo: bool) -> Ready:
    """Key and demo model; a demo that fails leaves the stack running without one."""
    key = await ensure_key(api, home.api_key)
    shown: str | None = None
    if with_demo:
        try:
            await _show_demo(stack, api, view, key)
            shown = demo.MODEL
        except CliError as error:
            view.say(f"the demo model does not answer: {error.message} {error.fix}")
    return Ready(
        gateway_url=stack.gateway_url,
        registry_url=stack.registry_url,
        console_url=stack.console_url,
        nats_url=stack.nats_url,
        admin_token=stack.secrets.admin_token,
        api_key=key,
        demo_model=shown,
        nats_operator_url=stack.nats_operator_url,
        models_dir=str(stack.models),
        pid=os.getpid(),
    )


async def _show_demo(stack: EmbeddedStack, api: AdminApi, view: View, key: str) -> None:
    await asyncio.to_thread(demo.place_file, stack.models)
    begun = time.monotonic()
    await until_running(api, await demo.start(api), timeout=_DEMO_S)
    view.step(demo.MODEL, time.monotonic() - begun)
    view.write(f"\n> {demo.PROMPT}")
    first: float | None = None
    async with gateway_api(Endpoint(stack.gateway_url, key)) as gateway:
        async for piece in demo.answer(gateway):
            first = view.elapsed if first is None else first
            view.write(piece, end="")
    view.write("\n")
    if first is not None:
        view.say(f"first token {first:.1f} s after the start of the command")


async def _show_status(stack: EmbeddedStack, api: AdminApi, view: View) -> None:
    """Show what runs, for ever."""
    if view.is_terminal:
        await _show_live(stack, api, view)
    last = await snapshot.take(stack.statuses(), api, stack.gateway_url)
    while True:
        await asyncio.sleep(_REFRESH_S)
        now = await snapshot.take(stack.statuses(), api, stack.gateway_url)
        for line in snapshot.changes(last, now):
            view.say(line)
        last = now


async def _show_live(stack: EmbeddedStack, api: AdminApi, view: View) -> None:
    with Live(console=view.console, auto_refresh=False, transient=True) as live:
        while True:
            now = await snapshot.take(stack.statuses(), api, stack.gateway_url)
            live.update(render(now, view.elapsed), refresh=True)
            await asyncio.sleep(_REFRESH_S)
