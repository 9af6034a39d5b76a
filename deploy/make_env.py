"""Write .env for Compose: fresh secrets, the Docker socket's group, the models folder. Never overwrites one."""

import argparse
import os
import secrets
import stat
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRETS = (
    "CORTEX_SECRET_KEY",
    "CORTEX_ADMIN_TOKEN",
    "POSTGRES_PASSWORD",
    "NATS_REGISTRY_PASSWORD",
    "NATS_ORCHESTRATOR_PASSWORD",
    "NATS_HEALTH_PASSWORD",
    "NATS_GATEWAY_PASSWORD",
    "NATS_GGUF_INSPECTOR_PASSWORD",
    "NATS_OPERATOR_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
)


def render(models: Path, docker_gid: int, profiles: str) -> str:
    """The file's text; each secret is 256 random bits behind a letter, which NATS needs to read it as text."""
    lines = [
        "# Secrets of this installation: keep it, and keep it to yourself. See .env.example for what else may be set."
    ]
    lines += [f"{name}=k{secrets.token_hex(32)}" for name in SECRETS]
    lines += [f"CORTEX_MODELS_DIR_HOST={models}", f"DOCKER_GID={docker_gid}", f"COMPOSE_PROFILES={profiles}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder with the models, on this host")
    parser.add_argument("--profiles", default="cpu", help="cpu or gpu, and observability: cpu,observability")
    parser.add_argument("--socket", type=Path, default=Path("/var/run/docker.sock"))
    parser.add_argument("--output", type=Path, default=ROOT / ".env")
    arguments = parser.parse_args()
    if not arguments.socket.exists() or not stat.S_ISSOCK(arguments.socket.stat().st_mode):
        sys.exit(f"{arguments.socket} is no Docker socket: is Docker installed and running? --socket names another.")
    models: Path = arguments.models.resolve()
    models.mkdir(parents=True, exist_ok=True)
    text = render(models, arguments.socket.stat().st_gid, arguments.profiles)
    try:
        descriptor = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.exit(f"{arguments.output} is there already and holds this installation's secrets: edit it instead.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {arguments.output}; models are read from {models}")  # noqa: T201 - a command talks


if __name__ == "__main__":
    main()
