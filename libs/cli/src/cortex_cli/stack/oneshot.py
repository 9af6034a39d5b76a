"""Programs of the services that run once and end: migrations, stopping engines."""

from collections.abc import Mapping

from cortex_cli.errors import StackError
from cortex_cli.stack import logs, nats, ports, services
from cortex_cli.stack.home import Home
from cortex_cli.stack.launch import AS_OURSELVES, launch, run_to_end
from cortex_cli.stack.secrets import load_or_create

MIGRATE_S = 120.0
STOP_ENGINES_S = 60.0


async def migrate(home: Home, env: Mapping[str, str]) -> None:
    """Bring the database to the registry's schema.

    Raises:
        StackError: the migrations failed.
    """
    code = await _run(home, "migrate", services.program(services.REGISTRY, "migrate"), env, MIGRATE_S)
    if code != 0:
        log = home.log("migrate")
        lines = "\n".join(f"    {line}" for line in logs.tail(log))
        raise StackError(f"The database migrations failed (exit code {code}).\n{lines}", fix=f"read {log}")


async def stop_engines(home: Home, env: Mapping[str, str], timeout: float = STOP_ENGINES_S) -> bool:
    """Stop every engine of the orchestrator's process runtime; false when that failed and some may still run."""
    program = services.program(services.ORCHESTRATOR, "stop-engines")
    return await _run(home, "stop-engines", program, env, timeout) == 0


async def stop_engines_of(home: Home, environ: Mapping[str, str]) -> bool:
    """The same for a stack that was killed: what it was told is read back from its home."""
    known = ports.recall(home.ports)
    if not set(services.SERVICES) <= known.keys():
        return False
    secrets = load_or_create(home.secrets)
    wiring = services.Wiring(
        home=home,
        ports=known,
        models=home.models,
        nats_url=nats.url(known.get("nats", 0), secrets),
        database_url="",
        secret_key=secrets.secret_key,
        admin_token=secrets.admin_token,
    )
    return await stop_engines(home, services.environment(wiring, environ))


async def _run(home: Home, name: str, argv: tuple[str, ...], env: Mapping[str, str], timeout: float) -> int | None:
    log = home.log(name)
    logs.rotate(log)
    return await run_to_end(await launch(argv, env=env, log=log, identity=AS_OURSELVES), timeout)
