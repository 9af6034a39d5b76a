"""Bursts: streams go on in order, each once, a few at a time, and what else comes is seen in between."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_gateway.adapters.bursts import AT_ONCE, Bursts
from cortex_gateway.adapters.upstream_connection import UpstreamConnection
from cortex_gateway.wire.answers import AnswerHeads

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class _Wire(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _connection(bursts: Bursts) -> UpstreamConnection:
    connection = UpstreamConnection(asyncio.get_running_loop(), AnswerHeads(), bursts)
    connection.connection_made(_Wire())
    connection.begin(_REQUEST, b"", 10, 10)
    return connection


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=12))
def test_each_goes_on_once_and_in_order(arrivals: list[int]) -> None:
    async def run() -> None:
        bursts = Bursts(asyncio.get_running_loop())
        asked: list[int] = []
        gone_on: list[int] = []
        for count in arrivals:
            before = len(gone_on)
            for _ in range(count):
                number = len(asked)
                asked.append(number)
                if bursts.may_go_on():
                    gone_on.append(number)
                else:
                    bursts.await_turn(lambda number=number: gone_on.append(number))
            assert len(gone_on) - before <= AT_ONCE
            await asyncio.sleep(0)
        for _ in asked:
            await asyncio.sleep(0)
        assert gone_on == asked
        if not bursts.may_go_on():
            bursts.await_turn(lambda: gone_on.append(-1))
            await asyncio.sleep(0)
            assert gone_on == [*asked, -1]

    asyncio.run(run())


async def test_a_few_go_on_in_each_turn_of_the_loop() -> None:
    bursts = Bursts(asyncio.get_running_loop())
    gone_on: list[int] = []
    while bursts.may_go_on():
        gone_on.append(-1)
    assert len(gone_on) == AT_ONCE
    for number in range(10):
        bursts.await_turn(lambda number=number: gone_on.append(number))
    for turn in range(1, 6):
        await asyncio.sleep(0)
        assert gone_on[AT_ONCE:] == list(range(min(10, turn * AT_ONCE)))


async def test_first_bytes_overtake_the_events_of_streams_and_nothing_is_lost() -> None:
    bursts = Bursts(asyncio.get_running_loop())
    streams = [_connection(bursts) for _ in range(6)]
    order: list[str] = []
    got: dict[str, bytes] = {}

    def listen(name: str, connection: UpstreamConnection) -> None:
        def on_progress() -> None:
            order.append(name)
            got[name] = got.get(name, b"") + connection.take()

        connection.expect(on_progress)

    for number, stream in enumerate(streams):
        listen(f"stream {number}", stream)
        stream.data_received(_HEAD + _chunk(b"first"))
    late = _connection(bursts)
    listen("late", late)
    assert order == [f"stream {number}" for number in range(6)]
    order.clear()
    for stream in streams:
        stream.data_received(_chunk(b" second"))
    late.data_received(_HEAD + _chunk(b"first"))
    streams[5].data_received(_chunk(b" third"))
    assert order == ["stream 0", "stream 1", "late"]
    while len(order) < 7:
        await asyncio.sleep(0)
    assert order[3:] == ["stream 2", "stream 3", "stream 4", "stream 5"]
    assert got["stream 5"] == b"first second third"
    assert got["late"] == b"first"
    await asyncio.sleep(0)
    assert len(order) == 7


async def test_an_end_and_a_failure_do_not_wait() -> None:
    bursts = Bursts(asyncio.get_running_loop())
    while bursts.may_go_on():
        pass
    ended, broken = _connection(bursts), _connection(bursts)
    heard: list[str] = []
    for name, connection in (("ended", ended), ("broken", broken)):
        connection.data_received(_HEAD + _chunk(b"all"))
        connection.take()
        connection.expect(lambda name=name: heard.append(name))
    ended.data_received(b"0\r\n\r\n")
    assert heard == ["ended"]
    broken.connection_lost(ConnectionResetError())
    assert "broken" in heard
    assert broken.error is not None


async def test_an_end_that_does_not_come_in_time_is_a_failure() -> None:
    connection = _connection(Bursts(asyncio.get_running_loop()))
    connection.data_received(_HEAD + _chunk(b"all"))
    connection.take()
    failed = asyncio.Event()
    connection.expect_end(failed.set, 0.01)
    async with asyncio.timeout(5):
        await failed.wait()
    assert connection.error is not None
    assert not connection.has_ended
