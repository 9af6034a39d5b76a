"""Lists the images of the Docker engine."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.domain.images import LocalImage


class DockerImages:
    """The port `ImageList`. Looks; pulls nothing."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    async def local(self) -> Sequence[LocalImage]:
        """Every image. Raises TransientError or DomainError when the engine cannot be asked."""
        listed: list[dict[str, Any]] = await self._engine.call("listing images", lambda client: client.api.images())
        return [_image(one) for one in listed]


def _image(listed: dict[str, Any]) -> LocalImage:
    return LocalImage(
        id=str(listed.get("Id", "")),
        tags=tuple(tag for tag in listed.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(digest for digest in listed.get("RepoDigests") or () if not digest.startswith("<none>")),
        size=int(listed.get("Size") or 0),
        created_at=datetime.fromtimestamp(int(listed.get("Created") or 0), UTC),
    )
