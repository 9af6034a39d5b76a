"""How much a gateway's memory grows: `python tests/bench/gateway_memory.py [--compiled .venv/compiled] [--seconds 15]`.

One gateway with a real NATS and stand-ins for engines (tests/bench/gateway). Each kind of request runs twice for as long, as fast
as one client process can: the second time tells what grows with the number of requests, the first one what is warmed up. Then NATS is
killed and started again, again and again. Growth is that of resident memory, the allocators' caches included.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from gateway.proxies import Environments, Proxy, Starter
from gateway.world import MODEL, Cores, Engines, Tools

CONNECTIONS = 8
RESTARTS = 10
UP_S = 8.0
"""Between a start of NATS and its end: a gateway looks for garbage five seconds after a reconnection."""
CHATS = b"/v1/chat/completions"


def body(**members: object) -> bytes:
    """A chat; without spaces, which the stand-ins for engines do not expect."""
    whole = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16, **members}
    return json.dumps(whole, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Args:
        members: of the chat, beside the usual ones; `whole` stands instead of all of it.
        stays: whether the connection is used again; `leaves`: whether the client goes once the answer has begun.
    """

    name: str
    members: dict[str, object]
    whole: bytes | None = None
    stays: bool = True
    leaves: bool = False
    stranger: bool = False

    def request(self, key: str) -> bytes:
        sent = body(**self.members) if self.whole is None else self.whole
        shown = f"sk-cortex-nobody-{random.random()}" if self.stranger else key
        return b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (
            CHATS,
            shown.encode(),
            len(sent),
            sent,
        )


KINDS = (
    Kind("chats", {}),
    Kind("streams", {"stream": True}),
    Kind("chats, each on a connection of its own", {}, stays=False),
    Kind("streams, each on a connection of its own", {"stream": True}, stays=False),
    Kind("hang-ups in a stream", {"stream": True, "seed": 20, "max_tokens": 200}, leaves=True),
    Kind("unknown models", {"model": "nowhere"}),
    Kind("keys that nobody has", {}, stranger=True),
    Kind("malformed bodies", {}, whole=b'{"model":'),
)


async def read_answer(reader: asyncio.StreamReader) -> int:
    """The status, once all of it is read."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
    return int(head.split()[1])


async def client(proxy: Proxy, kind: Kind, until: float, ends: Counter[int]) -> None:
    """One client, until the monotonic clock says so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    while time.monotonic() < until:
        writer.write(kind.request(proxy.api_key))
        if kind.leaves:
            ends[int((await reader.read(256)).split()[1])] += 1
        else:
            ends[await read_answer(reader)] += 1
        if kind.leaves or not kind.stays:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.close()


async def load(proxy: Proxy, kind: Kind, seconds: float) -> Counter[int]:
    """Requests by status."""
    ends: Counter[int] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(proxy, kind, until, ends) for _ in range(CONNECTIONS)))
    return ends


def measure(starter: Starter, proxy: Proxy, seconds: float, rounds: int) -> None:
    process = psutil.Process(proxy.pids[0])

    def resident_kb() -> float:
        return process.memory_info().rss / 1024

    say(f"{resident_kb() / 1024:.1f} MB at first\n\n| requests | kB, the first time | kB, again | number | status |")
    say("|---|---|---|---|---|")
    for kind in KINDS:
        before = resident_kb()
        asyncio.run(load(proxy, kind, seconds))
        between = resident_kb()
        ends = asyncio.run(load(proxy, kind, seconds))
        grown = f"{between - before:+.0f} | {resident_kb() - between:+.0f}"
        say(f"| {kind.name} | {grown} | {ends.total()} | {', '.join(map(str, ends))} |")
    say("\n| restarts of NATS | kB |\n|---|---|")
    for number in range(rounds):
        before = resident_kb()
        restart_nats(starter)
        say(f"| {number * RESTARTS + 1} to {(number + 1) * RESTARTS} | {resident_kb() - before:+.0f} |")
    say(f"\n{resident_kb() / 1024:.1f} MB at last")


def restart_nats(starter: Starter) -> None:
    for _ in range(RESTARTS):
        starter.world.nats.kill()
        starter.world.nats.start()
        time.sleep(UP_S)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", type=Path, help="folder of a compiled gateway; without it the sources run")
    parser.add_argument("--seconds", type=float, default=15, help="of each kind of request, twice")
    parser.add_argument("--rounds", type=int, default=4, help=f"of {RESTARTS} restarts of NATS")
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "cortex-bench")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, cores = Path(name), Cores(0, 1)
        engines = Engines(Tools(folder), cores)
        starter = Starter(cores, engines, Environments(chosen.home), folder, keys=1000)
        try:
            proxy = starter.start("gateway" if chosen.compiled is None else f"gateway@{chosen.compiled.resolve()}")
            try:
                measure(starter, proxy, chosen.seconds, chosen.rounds)
            finally:
                proxy.stop()
        finally:
            starter.close()
            engines.close()


if __name__ == "__main__":
    main()
