"""pytest plugin: real servers as fixtures."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_testing import binaries
from cortex_testing.servers import NatsServer, PostgresServer, create_database, drop_database


@pytest.fixture(scope="session")
def _shared_nats() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def nats_url(_shared_nats: NatsServer) -> str:
    """URL, with credentials, of a JetStream server that the whole session shares."""
    return _shared_nats.url


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A JetStream server of this test's own, to stop, kill, wipe and start."""
    server = NatsServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def fresh_nats_url(nats_server: NatsServer) -> str:
    """URL of this test's own JetStream server."""
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres cluster that the whole session shares."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """DSN of an empty database of this test's own."""
    dsn = asyncio.run(create_database(postgres_server))
    yield dsn
    asyncio.run(drop_database(postgres_server, dsn))


@pytest.fixture(scope="session")
def llama_server_binary() -> Path:
    """A real llama-server."""
    return binaries.llama_server()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """A real 92 MB chat model."""
    return binaries.demo_gguf()


@pytest.fixture(scope="session")
def secret_key() -> str:
    """A CORTEX_SECRET_KEY."""
    return "test-secret-key-0123456789abcdef-0123456789"
