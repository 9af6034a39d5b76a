"""Calls to the Docker engine: the SDK in threads of its own, with deadlines and our errors."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from cortex_kit.errors import TransientError
from cortex_orchestrator.adapters.docker_mapping import translate

ResultT = TypeVar("ResultT")

THREADS = 8
HTTP_TIMEOUT_S = 20
CALL_TIMEOUT_S = 30.0


class DockerEngine:
    """One lazily opened SDK client. Its threads are few and its own, so that a stuck engine starves nobody else."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._client: docker.DockerClient | None = None

    @property
    def url(self) -> str | None:
        return self._url

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

    def _open(self) -> Any:
        if self._client is None:
            if self._url is None:
                self._client = docker.from_env(version="auto", timeout=HTTP_TIMEOUT_S)
            else:
                self._client = docker.DockerClient(base_url=self._url, version="auto", timeout=HTTP_TIMEOUT_S)
        return cast(Any, self._client)

    def close(self) -> None:
        """Close the connection; calls under way end by their own deadlines."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
