"""The fixtures' servers are real and survive what tests do to them."""

import asyncpg
import nats
import pytest

from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration


async def test_postgres_gives_an_empty_database(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        count = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    assert count == 0


async def test_nats_keeps_its_store_over_a_kill_and_loses_it_in_a_wipe(nats_server: NatsServer) -> None:
    async def streams() -> list[str]:
        client = await nats.connect(nats_server.url)
        try:
            return [info.config.name or "" for info in await client.jetstream().streams_info()]
        finally:
            await client.close()

    client = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(name="S", subjects=["s.>"])
    await client.close()
    nats_server.kill()
    nats_server.start()
    assert await streams() == ["S"]
    nats_server.stop()
    nats_server.wipe()
    nats_server.start()
    assert await streams() == []
