"""Clients that leave, engines that die, NATS that is away, a gateway that is killed."""

import asyncio
import signal
import time

import httpx
import openai
import pytest

from cortex_contracts.enums import DesiredState, UsageOutcome, Verdict

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
MESSAGES = [{"role": "user", "content": "Write a very long story about a river."}]


async def test_a_client_that_hangs_up_is_charged_for_what_it_got(world, llama):
    secret = await world.serve(llama)
    got = 0
    async with world.client(secret) as client:
        whole = await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=1)
        stream = await client.chat.completions.create(
            model=llama.alias, messages=MESSAGES, max_tokens=800, stream=True, extra_body={"ignore_eos": True}
        )
        async for chunk in stream:
            got += bool(chunk.choices[0].delta.content)
            if got == 10:
                break
        await stream.close()
    _, record = await world.usage(2)
    assert record.outcome is UsageOutcome.CLIENT_DISCONNECTED
    assert record.estimated
    assert got <= record.completion_tokens <= got + 10
    assert whole.usage is not None
    assert record.prompt_tokens == whole.usage.prompt_tokens
    await world.no_more_usage()
    await until_idle(llama)


async def test_a_client_that_hangs_up_before_the_answer_is_recorded(world, llama):
    secret = await world.serve(llama)
    async with httpx.AsyncClient(base_url=world.gateway.url) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(
                "/v1/chat/completions",
                json={"model": llama.alias, "messages": MESSAGES, "max_tokens": 300, "ignore_eos": True},
                headers={"authorization": f"Bearer {secret}"},
                timeout=0.5,
            )
    [record] = await world.usage(1)
    assert (record.outcome, record.status) == (UsageOutcome.CLIENT_DISCONNECTED, 499)
    assert record.prompt_tokens > 10
    await world.no_more_usage()


async def until_idle(llama) -> None:
    """The engine has no task left: a new request does not wait behind a forgotten one."""
    async with asyncio.timeout(5), httpx.AsyncClient() as http:
        while True:
            slots = (
                await http.get(f"{llama.endpoint}/slots", headers={"authorization": f"Bearer {llama._key}"})
            ).json()
            if not any(slot["is_processing"] for slot in slots):
                return
            await asyncio.sleep(0.1)


async def test_a_killed_engine_gives_503_with_retry_after_then_serves_again(new_world, nats_url, mortal_llama):
    world = await new_world(nats_url, replica_wait_s="1.0")
    await world.bus.js.purge_stream("USAGE")
    llama = mortal_llama
    secret = await world.serve(llama)
    suspected = await world.bus.nc.subscribe("upstream.suspected")
    async with world.client(secret) as client:
        await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        await asyncio.to_thread(llama.kill)
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as down:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        assert time.monotonic() - began < 4
        assert down.value.status_code == 503
        assert down.value.code == "model_unreachable"
        assert int(down.value.response.headers["retry-after"]) > 0
        event = await suspected.next_msg(timeout=5)
        assert llama.replica_id.encode() in event.data
        await world.add_verdict(llama, Verdict.UNHEALTHY, "connection refused")
        await asyncio.sleep(0.1)
        with pytest.raises(openai.InternalServerError) as unhealthy:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        assert unhealthy.value.code == "model_unhealthy"
        await asyncio.to_thread(llama.start)
        await world.add_verdict(llama)
        await asyncio.sleep(0.1)
        answer = await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        assert answer.choices
    records = await world.usage(4)
    assert [record.status for record in records] == [200, 503, 503, 200]
    assert records[1].outcome is UsageOutcome.UPSTREAM_ERROR


async def test_a_request_waits_for_a_replica_that_comes_in_time(world, mortal_llama):
    llama = mortal_llama
    await world.add_model(llama)
    await world.add_replica(llama)
    await world.add_verdict(llama, Verdict.LOADING)
    secret = await world.add_key()
    await world.until_served(secret, llama.alias)
    async with world.client(secret) as client:
        waiting = asyncio.create_task(
            client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        )
        await asyncio.sleep(1.0)
        assert not waiting.done()
        await world.add_verdict(llama)
        assert (await waiting).choices


async def test_an_engine_that_restarts_within_the_wait_costs_no_request(new_world, nats_url, mortal_llama):
    llama = mortal_llama
    world = await new_world(nats_url, replica_wait_s="25")
    secret = await world.serve(llama)
    await asyncio.to_thread(llama.kill)
    async with world.client(secret) as client:
        waiting = asyncio.create_task(
            client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        )
        await asyncio.to_thread(llama.start)
        assert (await waiting).choices


async def test_a_stopped_model_says_so_at_once(world, llama):
    secret = await world.serve(llama)
    await world.add_model(llama, desired_state=DesiredState.STOPPED)
    await world.add_verdict(llama, Verdict.UNHEALTHY)
    await asyncio.sleep(0.1)
    async with world.client(secret) as client:
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as stopped:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES)
    assert time.monotonic() - began < 1
    assert stopped.value.code == "model_stopped"


async def test_it_serves_without_nats_and_replays_usage_later(new_world, nats_server, llama):
    world = await new_world(nats_server.url)
    secret = await world.serve(llama)
    await asyncio.to_thread(nats_server.kill)
    async with world.client(secret) as client:
        for _ in range(3):
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
    async with httpx.AsyncClient(base_url=world.gateway.url) as http:
        assert (await http.get("/readyz")).status_code == 200
    await asyncio.to_thread(nats_server.start)
    records = await world.usage(3, timeout_s=20)
    assert len({record.request_id for record in records}) == 3
    await world.no_more_usage()


async def test_a_killed_gateway_loses_no_record_and_repeats_none(new_world, nats_server, llama):
    world = await new_world(nats_server.url)
    secret = await world.serve(llama)
    await asyncio.to_thread(nats_server.stop)
    async with world.client(secret) as client:
        for _ in range(3):
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
    world.gateway.signal(signal.SIGKILL)
    await asyncio.to_thread(world.gateway.wait)
    await asyncio.to_thread(nats_server.start)
    await asyncio.to_thread(world.gateway.start)
    records = await world.usage(3, timeout_s=20)
    assert len({record.request_id for record in records}) == 3
    await world.no_more_usage()


async def test_sigterm_lets_a_stream_finish_and_refuses_new_requests(world, llama):
    secret = await world.serve(llama)
    async with world.client(secret) as client:
        stream = await client.chat.completions.create(
            model=llama.alias, messages=MESSAGES, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = aiter(stream)
        await anext(chunks)
        world.gateway.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        rest = [chunk async for chunk in chunks]
    assert rest[-1].choices[0].finish_reason is not None
    assert await asyncio.to_thread(world.gateway.wait) == 0
    [record] = await world.usage(1)
    assert record.outcome is UsageOutcome.COMPLETED
    assert [path.name for path in world.gateway.spool.iterdir() if path.suffix != ".snapshot"] == []
