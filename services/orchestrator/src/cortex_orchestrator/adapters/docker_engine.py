"""Calls to the Docker engine: the SDK in threads of its own, with deadlines and our errors."""

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar, cast

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_mapping import translate
from cortex_orchestrator.adapters.docker_streams import CALL_TIMEOUT_S, DockerStreams, Refused, frames, json_lines
from cortex_orchestrator.adapters.log_lines import LineSplitter

log = get_logger()
ResultT = TypeVar("ResultT")

THREADS = 8
HTTP_TIMEOUT_S = 20
EVENTS_RETRY_S = 2.0


def _engine_time(client: Any) -> str:
    return f"{datetime.fromisoformat(client.info()['SystemTime']).timestamp():.9f}"


def _moment(event: Mapping[str, Any]) -> str | None:
    """When an event happened, as `since` wants it: seconds and nine digits."""
    nanoseconds = event.get("timeNano")
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}" if isinstance(nanoseconds, int) else None


class DockerEngine:
    """One lazily opened SDK client. Its threads are few and its own, so that a stuck engine starves nobody else."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self.streams = DockerStreams(url)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._client: docker.DockerClient | None = None

    async def call(
        self, doing: str, operation: Callable[[Any], ResultT], *, timeout: float = CALL_TIMEOUT_S
    ) -> ResultT:
        """Run `operation(client)` in a thread.

        Raises:
            DomainError, TransientError: as `translate` decides; NotFound passes, it is an answer.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: operation(self._open()))
        try:
            async with asyncio.timeout(timeout):
                return await future
        except ImageNotFound as error:
            raise translate(error, doing) from error
        except NotFound:
            raise
        except TimeoutError as error:
            raise TransientError(f"{doing}: the Docker engine did not answer in {timeout:g} s") from error
        except (DockerException, RequestException, OSError) as error:
            raise translate(error, doing) from error

    async def events(self, filters: Mapping[str, object]) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Events for ever. None: connected (again); what happened since the last event of before follows.

        `since` is given in the engine's own clock, so that clocks may differ.
        """
        since: str | None = None
        while True:
            try:
                since = since or await self.call("asking for the time", _engine_time)
                asked = {"filters": json.dumps(filters), "since": since}
                async with self.streams.open("GET", "events", asked) as body:
                    yield None
                    async for event in json_lines(body):
                        since = _moment(event) or since
                        yield event
            except (Refused, DomainError, TransientError, ValueError) as error:
                log.warning("docker_events_failed", error=str(error))
            await asyncio.sleep(EVENTS_RETRY_S)

    async def output(self, path: str, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """The log at `path` (of a container or a service): its last lines, then what comes; in whole lines.

        Raises:
            Refused, TransientError: as DockerStreams says.
        """
        lines = LineSplitter()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        asked = {"stdout": "1", "stderr": "1", "follow": "1", "tail": str(tail)}
        async with self.streams.open("GET", path, asked) as body:
            async for piece in frames(body):
                if whole := lines.feed(decoder.decode(piece)):
                    yield whole
        if rest := lines.flush():
            yield rest

    def _open(self) -> Any:
        if self._client is None:
            if self._url is None:
                self._client = docker.from_env(version="auto", timeout=HTTP_TIMEOUT_S)
            else:
                self._client = docker.DockerClient(base_url=self._url, version="auto", timeout=HTTP_TIMEOUT_S)
            # An engine that is being stopped still answers on connections that it has, while it ends its containers.
            self._client.api.headers["Connection"] = "close"
        return cast(Any, self._client)

    def close(self) -> None:
        """Close the connection; calls under way end by their own deadlines."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
