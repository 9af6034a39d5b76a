"""Runs a service: one HTTP server, supervised background tasks, signals, drain, deadline."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

import uvicorn

from cortex_kit.logging import configure_logging, get_logger
from cortex_kit.settings import ProcessSettings

log = get_logger()
SettingsT = TypeVar("SettingsT", bound=ProcessSettings)

RECANCEL_S = 3.0


class HttpServer(Protocol):
    """A server that a service brings along instead of uvicorn."""

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a bound socket until `stop` was called and what was in flight has ended."""
        ...

    def stop(self) -> None:
        """Take nothing new; make `serve` return soon."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """What a composition root hands to the runner.

    Args:
        name: e.g. `gateway`.
        http: ASGI application, operations endpoints included, or a server of the service's own.
        tasks: loops that must live as long as the service; one that ends or raises stops the service with status 1.
        drain: called first on SIGTERM or SIGINT; stops intake and lets work in flight finish.
        uvicorn_options: further arguments of uvicorn.Config, for an ASGI application.
    """

    name: str
    http: Any
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    drain: Callable[[], Awaitable[None]] | None = None
    uvicorn_options: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _Uvicorn(uvicorn.Server):
    """`HttpServer` by uvicorn."""

    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the runner's."""
        yield


def run(settings: SettingsT, build: Callable[[SettingsT], AbstractAsyncContextManager[Service]]) -> NoReturn:
    """Run until a signal or a failure; exits the process with status 0 or 1."""
    name = type(settings).__module__.removesuffix(".settings").removeprefix("cortex_")
    configure_logging(name, settings.instance, settings.log_level, settings.log_format)
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        log.error("port_unavailable", host=settings.host, port=settings.port, error=str(error))
        sys.exit(1)
    sys.exit(_run_loop(_serve(settings, build, listener)))


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415 - not there on Windows

    return uvloop.run(main)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


async def _serve(
    settings: SettingsT,
    build: Callable[[SettingsT], AbstractAsyncContextManager[Service]],
    listener: socket.socket,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    failures: list[str] = []

    async def supervise(task_name: str, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
            if not stop.is_set():
                failures.append(task_name)
                log.error("task_ended", task=task_name)
        except asyncio.CancelledError:
            raise
        except Exception:
            # The process boundary: a dead loop must not leave a half-working service behind.
            failures.append(task_name)
            log.exception("task_failed", task=task_name)
        finally:
            stop.set()

    async with build(settings) as service, asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervise(key, task), name=key) for key, task in service.tasks.items()]
        serve, stop_serving = _http_server(service, settings, listener)
        http = group.create_task(supervise("http", serve), name="http")
        log.info("service_started", host=settings.host, port=listener.getsockname()[1])
        await stop.wait()
        _arm_deadline(settings.shutdown_timeout_s + 5)
        log.info("service_stopping", failed=failures)
        await _drain(service, settings.shutdown_timeout_s)
        stopping_cleanly = not failures
        stop_serving()
        await asyncio.wait([http], timeout=settings.shutdown_timeout_s)
        await _cancel([*tasks, http])
    log.info("service_stopped")
    return 0 if stopping_cleanly else 1


def _http_server(
    service: Service, settings: ProcessSettings, listener: socket.socket
) -> tuple[Callable[[], Awaitable[None]], Callable[[], None]]:
    """How to serve, and how to stop."""
    if callable(service.http):
        server = _Uvicorn(_uvicorn_config(service, settings))
        return lambda: server.serve(sockets=[listener]), server.stop
    own: HttpServer = service.http
    return lambda: own.serve(listener), own.stop


def _uvicorn_config(service: Service, settings: ProcessSettings) -> uvicorn.Config:
    options: dict[str, Any] = {
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "http": "httptools",
        "ws": "none",
        # uvicorn would believe X-Forwarded-For from every process of this host; `cortex_kit.proxies` asks the settings.
        "proxy_headers": False,
        "timeout_graceful_shutdown": max(1, int(settings.shutdown_timeout_s)),
    }
    return uvicorn.Config(service.http, **(options | dict(service.uvicorn_options)))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel until all are done: `asyncio.wait_for` of Python 3.11, which nats-py uses, may swallow a cancellation."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=RECANCEL_S)


async def _drain(service: Service, timeout_s: float) -> None:
    if service.drain is None:
        return
    try:
        async with asyncio.timeout(timeout_s):
            await service.drain()
    except TimeoutError:
        log.warning("drain_deadline_passed", timeout_s=timeout_s)


def _arm_deadline(seconds: float) -> None:
    """A thread, because a stuck event loop could not run its own alarm."""
    timer = threading.Timer(seconds, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
