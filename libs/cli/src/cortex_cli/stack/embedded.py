"""The parts of the stack, started as parallel as they allow and stopped in order."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cortex_cli.stack import nats, oneshot, ports, postgres, services
from cortex_cli.stack.home import Home
from cortex_cli.stack.process import ProcessStatus
from cortex_cli.stack.secrets import load_or_create
from cortex_cli.stack.services import Wiring
from cortex_cli.stack.supervisor import Supervisor, unwrap

GATEWAY_PORT = "CORTEX_GATEWAY_PORT"
REGISTRY_PORT = "CORTEX_REGISTRY_PORT"
CONSOLE_PORT = "CORTEX_CONSOLE_PORT"
_DEFAULTS = {GATEWAY_PORT: 8080, REGISTRY_PORT: 8081, CONSOLE_PORT: 8082}
_INTERNAL = ("nats", "postgres", services.ORCHESTRATOR, services.HEALTH, services.INSPECTOR)

_READY_S = 120.0
_STOP_ENGINES_HURRIED_S = 5.0

Report = Callable[[str, float], None]
"""A step that is done, and the seconds it took."""


def choose_ports(home: Home, environ: Mapping[str, str]) -> dict[str, int]:
    """A port for every process; remembers them.

    Raises:
        CliError: one of the public ports is no port or is taken.
    """
    public = {variable: ports.public_port(environ, variable, default) for variable, default in _DEFAULTS.items()}
    ports.require_free(public)
    chosen = ports.assign(_INTERNAL, ports.recall(home.ports), reserved=public.values())
    chosen |= {services.GATEWAY: public[GATEWAY_PORT], services.REGISTRY: public[REGISTRY_PORT]}
    chosen[services.CONSOLE] = public[CONSOLE_PORT]
    ports.remember(home.ports, chosen)
    return chosen


class EmbeddedStack:
    """NATS, Postgres (unless the caller named a server) and the six services. Made by `embedded_stack()`."""

    def __init__(self, home: Home, watch: Supervisor, environ: Mapping[str, str], report: Report) -> None:
        self._home = home
        self._watch = watch
        self._environ = environ
        self._report = report
        self.secrets = load_or_create(home.secrets)
        self.ports = choose_ports(home, environ)
        self.models = Path(environ.get("CORTEX_MODELS_DIR") or home.models).absolute()
        external = environ.get(postgres.URL_VARIABLE)
        self._postgres = None if external else self._own_postgres()
        self._wiring = Wiring(
            home=home,
            ports=self.ports,
            models=self.models,
            nats_url=self.nats_url,
            database_url=external or (self._postgres.url if self._postgres else ""),
            secret_key=self.secrets.secret_key,
            admin_token=self.secrets.admin_token,
        )
        self._env = services.environment(self._wiring, environ)

    @property
    def gateway_url(self) -> str:
        """Address of the OpenAI-compatible API."""
        return f"http://{ports.LOOPBACK}:{self.ports[services.GATEWAY]}"

    @property
    def registry_url(self) -> str:
        """Address of the admin API."""
        return f"http://{ports.LOOPBACK}:{self.ports[services.REGISTRY]}"

    @property
    def console_url(self) -> str:
        """Address of the console."""
        return f"http://{ports.LOOPBACK}:{self.ports[services.CONSOLE]}"

    @property
    def nats_url(self) -> str:
        """NATS with every right."""
        return nats.url(self.ports["nats"], self.secrets)

    @property
    def nats_operator_url(self) -> str:
        """NATS for listening to events only."""
        return nats.url(self.ports["nats"], self.secrets, nats.OPERATOR)

    def statuses(self) -> list[ProcessStatus]:
        """Every process, as of now."""
        return self._watch.statuses()

    async def start(self) -> None:
        """Start everything; returns when everything is ready.

        Raises:
            CliError: a part does not come up.
        """
        others = [name for name in services.SERVICES if name != services.REGISTRY]
        parts: list[Coroutine[object, object, None]] = [
            self._start_nats(),
            self._start_registry(),
            *(self._start_service(name) for name in others),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part)
        except BaseExceptionGroup as failures:
            raise unwrap(failures) from None

    async def stop(self) -> None:
        """Stop the services, then the engines, then Postgres, then NATS; returns when all are gone."""
        begun = time.monotonic()
        await self._watch.stop(services.SERVICES)
        self._report("services stopped", time.monotonic() - begun)
        await self._stop_engines()
        await self._watch.stop(("postgres",))
        await self._watch.stop(("nats",))
        if self._postgres is not None:
            self._postgres.close()
        self._report("stopped", time.monotonic() - begun)

    def _own_postgres(self) -> postgres.EmbeddedPostgres:
        return postgres.EmbeddedPostgres(
            self._home, port=self.ports["postgres"], password=self.secrets.postgres_password, environ=self._environ
        )

    async def _start_nats(self) -> None:
        self._watch.start(nats.prepare(self._home, self.ports["nats"], self.secrets, self._environ))
        self._report("nats", await self._watch.wait_ready("nats", _READY_S))

    async def _start_registry(self) -> None:
        begun = time.monotonic()
        if self._postgres is None:
            await postgres.check_external(self._wiring.database_url)
        else:
            self._watch.start(await self._postgres.prepare())
            await self._watch.wait_ready("postgres", _READY_S)
            await self._postgres.ensure_database()
        self._report("postgres", time.monotonic() - begun)
        begun = time.monotonic()
        await oneshot.migrate(self._home, self._env)
        self._report("migrations", time.monotonic() - begun)
        await self._start_service(services.REGISTRY)

    async def _start_service(self, name: str) -> None:
        self._watch.start(services.service(name, self._wiring, self._env))
        self._report(name, await self._watch.wait_ready(name, _READY_S))

    async def _stop_engines(self) -> None:
        if services.ORCHESTRATOR not in self._watch.names:
            return
        begun = time.monotonic()
        patience = _STOP_ENGINES_HURRIED_S if self._watch.hurry.is_set() else oneshot.STOP_ENGINES_S
        done = await oneshot.stop_engines(self._home, self._env, patience)
        self._report(
            "engines stopped" if done else f"ENGINES MAY STILL RUN, see {self._home.log('stop-engines')}",
            time.monotonic() - begun,
        )


@asynccontextmanager
async def embedded_stack(
    home: Home, watch: Supervisor, environ: Mapping[str, str], report: Report
) -> AsyncGenerator[EmbeddedStack]:
    """A stack that has not started yet; on the way out, however that happens, all of it is stopped.

    Raises:
        CliError: bad or taken ports, damaged secrets.
    """
    stack = EmbeddedStack(home, watch, environ, report)
    try:
        yield stack
    finally:
        await stack.stop()
