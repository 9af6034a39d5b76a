"""The files of a deployment say what the code says."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
CORTEX = ("registry", "orchestrator", "gateway", "health", "gguf-inspector", "console", "socket-proxy")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


settings = _load("render_settings")


def documented(path: Path) -> set[str]:
    return set(re.findall(r"(?m)^#?([A-Z][A-Z0-9_]+)=", path.read_text()))


def test_the_settings_of_services_are_those_of_the_code() -> None:
    assert (ROOT / "deploy" / "services.env.example").read_text() == settings.render(), "run make docs"


def test_env_example_names_exactly_what_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))
    assert documented(ROOT / ".env.example") - {"COMPOSE_PROFILES"} == asked


def test_make_env_writes_what_is_required() -> None:
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", COMPOSE))
    text = _load("make_env").render(Path("/models"), 105, "cpu")
    written = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    assert required <= written.keys() <= documented(ROOT / ".env.example")
    secrets = [value for value in written.values() if value.startswith("k")]
    assert len(secrets) == len(set(secrets)) == 10


def names(kind: type[BaseSettings]) -> set[str]:
    found = {name for name, _ in settings.variables(kind)}
    for field in kind.model_fields.values():
        found |= {str(one) for one in getattr(field.validation_alias, "choices", ())}
    return found


@pytest.mark.parametrize("service", CORTEX)
def test_what_compose_sets_exists_and_what_is_required_is_set(service: str) -> None:
    kind = settings.CLASSES[service]
    environment = set(SERVICES[service]["environment"])
    foreign = environment - names(kind) - {"CORTEX_ENGINES"}
    assert foreign == set()
    required = {name for name, field in settings.variables(kind) if field.is_required()}
    assert required <= environment


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_hardened_and_restarts(service: str) -> None:
    container = SERVICES[service]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in container
    mounts = [mount for mount in container.get("volumes", []) if "docker.sock" in mount]
    assert (mounts != []) is (service == "socket-proxy")


def test_only_the_edge_is_open_to_other_hosts_unless_env_says_so() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"edge", "nats", "prometheus", "grafana"}
    outside = [port for ports in published.values() for port in ports if "127.0.0.1" not in port]
    assert outside == ["${CORTEX_GATEWAY_BIND:-8080}:8080"]
