"""A cluster whose orchestrators drive a Docker engine of the test's own, and a registry where that engine sees it."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from private_engine import PrivateEngine
from pydantic import SecretStr
from slim_image import ENTRYPOINT, ENVIRONMENT

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import ReplicaState
from cortex_kit.ids import uuid7
from cortex_kit.secrets import engine_api_key

IMAGE = "slim/llama-server:test"
CONFIG = {"Entrypoint": ENTRYPOINT, "Env": ENVIRONMENT}
REGISTRY = Path(__file__).parent / "small_registry.py"
CHAT = """
import json, sys, time, urllib.error, urllib.request
url, key = sys.argv[1:]
body = json.dumps({"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}).encode()
headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
for _ in range(20):
    try:
        request = urllib.request.Request(url + "/v1/chat/completions", body, headers)
        print(json.load(urllib.request.urlopen(request, timeout=20))["choices"][0]["message"]["content"])
        break
    except OSError as error:
        last = error
        time.sleep(0.1)
else:
    raise last
"""


class Host:
    """A cluster whose orchestrators drive one private engine."""

    def __init__(self, cluster: Any, engine: PrivateEngine, image: str) -> None:
        self.cluster = cluster
        self.engine = engine
        self.node = f"faults-{uuid7()[-8:]}"
        self.network = f"net-{self.node}"
        cluster.extra |= {
            "CORTEX_ORCHESTRATOR_RUNTIME": "docker",
            "CORTEX_ORCHESTRATOR_DOCKER_URL": engine.url,
            "CORTEX_ORCHESTRATOR_NODE": self.node,
            "CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE": image,
            "CORTEX_ORCHESTRATOR_DOCKER_NETWORK": self.network,
        }

    def containers(self) -> list[Any]:
        client = self.engine.client()
        with contextlib.closing(client):
            return client.containers.list(all=True, filters={"label": f"cortex.node={self.node}"})

    async def chat(self, document: ReplicaDocumentV1) -> str | None:
        """One real answer, asked for where the engine publishes its ports; None when there is none within two seconds."""
        key = engine_api_key(SecretStr(self.cluster.secret_key), document.id, document.spec_hash)
        command = self.engine.inside(sys.executable, "-c", CHAT, str(document.endpoint), key)
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=200, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    async def serves(self, *models: ModelDocumentV1) -> None:
        """Every model answers from the only container that it has, and nothing else is there. Documents are read anew
        for each try: a container that has just been started again has another port."""
        for model in models:

            async def answers(model: ModelDocumentV1 = model) -> str | None:
                document = await self.cluster.replica(model)
                up = document is not None and document.state is ReplicaState.STARTED and document.trouble is None
                return await self.chat(document) if document is not None and up else None

            await self.cluster.until(answers, f"{model.name} answers", timeout=180)
        names = sorted(container.name for container in self.containers())
        assert names == sorted(f"llamacpp-model-{model.id}-0" for model in models)

    def failures(self, model: ModelDocumentV1) -> list[str]:
        """Codes of what its engine ended of, oldest first."""
        return [
            str((event["data"]["diagnosis"] or {}).get("code"))
            for subject, event in self.cluster.events
            if subject == "container.failed" and event["data"]["model_id"] == model.id
        ]


@contextlib.contextmanager
def serves_images(engine: PrivateEngine, folder: Path, layer: bytes, pause_s: float) -> Iterator["Images"]:
    """A registry where the engine sees it, of one image that runs."""
    packed, said = folder / "layer.tar.gz", folder / "registry.log"
    packed.write_bytes(layer)
    command = engine.inside(sys.executable, str(REGISTRY), str(packed), json.dumps(CONFIG), str(pause_s))
    with said.open("wb") as output, subprocess.Popen(command, stdout=output) as registry:
        try:
            yield Images(said)
        finally:
            registry.kill()


class Images:
    """What the registry says of itself."""

    def __init__(self, said: Path) -> None:
        self._said = said

    async def image(self) -> dict[str, str]:
        """Its `reference` and `digest`."""
        async with asyncio.timeout(60):
            while not (lines := self._said.read_text().splitlines()):
                await asyncio.sleep(0.05)
        return json.loads(lines[0])

    @property
    def layers_served(self) -> int:
        return self._said.read_text().splitlines().count("layer")
