"""Print deploy/services.env.example: every setting of every service with its default, from the settings classes."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from cortex_console.settings import Settings as Console
from cortex_gateway.settings import Settings as Gateway
from cortex_gguf_inspector.settings import Settings as Inspector
from cortex_health.settings import Settings as Health
from cortex_kit.settings import ServiceSettings
from cortex_orchestrator.settings import Settings as Orchestrator
from cortex_registry.settings import Settings as Registry
from cortex_socket_proxy.settings import Settings as SocketProxy

ROOT = Path(__file__).resolve().parent.parent
_OWN = ("_HOST", "_PORT", "_INSTANCE", "_PROXY_SOCKET")
"""What an image and Compose decide."""

CLASSES: dict[str, type[BaseSettings]] = {
    "registry": Registry,
    "orchestrator": Orchestrator,
    "gateway": Gateway,
    "health": Health,
    "gguf-inspector": Inspector,
    "console": Console,
    "socket-proxy": SocketProxy,
}
HEAD = """\
# Settings of the services, beside the secrets and addresses of .env. Copy this to services.env next to docker-compose.yaml and
# uncomment what you change; every service reads it. Made by `make docs`.
"""


def variables(kind: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    """Name of the environment variable of each field."""
    prefix = kind.model_config.get("env_prefix", "")
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
        names = [alias] if isinstance(alias, str) else names
        yield next((one for one in names if one.isupper()), f"{prefix}{name}".upper()), field


def given() -> frozenset[str]:
    """Variables that docker-compose.yaml sets itself."""
    return frozenset(re.findall(r"(?m)^ +([A-Z][A-Z0-9_]+):", (ROOT / "docker-compose.yaml").read_text()))


def render() -> str:
    """The whole file."""
    hidden = {*dict(variables(ServiceSettings)), *given()}
    parts = [HEAD]
    for service, kind in CLASSES.items():
        parts.append(f"\n# --- {service}\n")
        for name, field in variables(kind):
            if name not in hidden and not name.endswith(_OWN):
                parts.append(_line(name, field))
    return "".join(parts)


def _line(name: str, field: FieldInfo) -> str:
    about = " ".join((field.description or "").split())
    return (f"# {about}\n" if about else "") + f"#{name}={_default(field)}\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


if __name__ == "__main__":
    sys.stdout.write(render())
