"""The six services as processes: what each one is told by environment."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cortex_cli.stack.compiled import compiled_gateway
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import LOOPBACK
from cortex_cli.stack.probes import http_ready
from cortex_cli.stack.process import ProcessSpec

GATEWAY = "gateway"
REGISTRY = "registry"
ORCHESTRATOR = "orchestrator"
HEALTH = "health"
INSPECTOR = "gguf-inspector"
CONSOLE = "console"
SERVICES = (REGISTRY, ORCHESTRATOR, GATEWAY, HEALTH, INSPECTOR, CONSOLE)
"""In start order: the longest way to the first answer begins first."""

NODE = "local"
SHUTDOWN_S = 10

_SECRETS = frozenset(
    {
        "CORTEX_NATS_URL",
        "CORTEX_SECRET_KEY",
        "CORTEX_SECRET_KEYS_OLD",
        "CORTEX_REGISTRY_DATABASE_URL",
        "CORTEX_REGISTRY_ADMIN_TOKEN",
    }
)
_MODULES = {name: f"cortex_{name.replace('-', '_')}" for name in SERVICES}
_PREFIXES = {name: f"CORTEX_{name.upper().replace('-', '_')}" for name in SERVICES} | {INSPECTOR: "CORTEX_INSPECTOR"}


@dataclass(frozen=True, slots=True)
class Wiring:
    """Addresses and secrets that connect the services."""

    home: Home
    ports: Mapping[str, int]
    models: Path
    nats_url: str = field(repr=False)
    database_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    admin_token: str = field(repr=False)


def environment(wiring: Wiring, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment all services share: ours over what the caller's shell has set."""
    ours = {
        "CORTEX_NATS_URL": wiring.nats_url,
        "CORTEX_SECRET_KEY": wiring.secret_key,
        "CORTEX_MODELS_DIR": str(wiring.models),
        "CORTEX_EXPORT_DIR": inherited.get("CORTEX_EXPORT_DIR", str(wiring.home.backups)),
        "CORTEX_REGISTRY_DATABASE_URL": wiring.database_url,
        "CORTEX_REGISTRY_ADMIN_TOKEN": wiring.admin_token,
        "CORTEX_GATEWAY_SPOOL_DIR": str(wiring.home.spool),
        "CORTEX_ORCHESTRATOR_STATE_DIR": str(wiring.home.engines),
        "CORTEX_ORCHESTRATOR_RUNTIME": inherited.get("CORTEX_ORCHESTRATOR_RUNTIME", "process"),
        "CORTEX_ORCHESTRATOR_NODE": NODE,
        # The console asks in the name of people whose addresses it knows.
        "CORTEX_REGISTRY_TRUSTED_PROXIES": inherited.get("CORTEX_REGISTRY_TRUSTED_PROXIES", f"{LOOPBACK}/32"),
        "CORTEX_CONSOLE_REGISTRY_URL": f"http://{LOOPBACK}:{wiring.ports[REGISTRY]}",
        "CORTEX_CONSOLE_GATEWAY_URL": f"http://{LOOPBACK}:{wiring.ports[GATEWAY]}",
        "PYTHONUNBUFFERED": "1",
    }
    for name in SERVICES:
        ours[f"{_PREFIXES[name]}_HOST"] = LOOPBACK
        ours[f"{_PREFIXES[name]}_PORT"] = str(wiring.ports[name])
        ours[f"{_PREFIXES[name]}_INSTANCE"] = NODE  # a stable name takes its own lease again at once
        ours[f"{_PREFIXES[name]}_SHUTDOWN_TIMEOUT_S"] = str(SHUTDOWN_S)
    return {**inherited, **ours}


def service(name: str, wiring: Wiring, env: Mapping[str, str]) -> ProcessSpec:
    """How to run one service."""
    return ProcessSpec(
        name=name,
        argv=program(name),
        env=_environment_of(name, env),
        log=wiring.home.log(name),
        ready=http_ready(wiring.ports[name]),
        stop_signals=((signal.SIGTERM, SHUTDOWN_S + 8.0),),
    )


def _environment_of(name: str, env: Mapping[str, str]) -> Mapping[str, str]:
    if name == CONSOLE:
        return _without_secrets(env)
    compiled = compiled_gateway() if name == GATEWAY and env.get("CORTEX_GATEWAY_COMPILED") != "0" else None
    return env if compiled is None else {**env, "PYTHONPATH": str(compiled)}


def _without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The console acts with the sessions of people; it needs, and gets, no secret of the installation."""
    return {name: value for name, value in env.items() if name not in _SECRETS}


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a service, run by the same interpreter."""
    return (sys.executable, "-m", _MODULES[name], *arguments)
