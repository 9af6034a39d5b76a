"""What the surface costs a request: decoding, checking, preparing the body, levelling the answer and reading its usage.

    python tests/bench/gateway_levelling.py

Best of many short runs, so that other work on the machine does not count. Microseconds.
"""

import json
import time
from collections.abc import Callable

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.levelling.ask import Answering, engine_body, read_ask
from cortex_gateway.domain.requests import API_ROUTES, decode_request

ROUTE = API_ROUTES["/v1/chat/completions"]
ABLE = Capabilities(EngineType.VLLM, context=4096, tools=True)
MESSAGES = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "x" * 250}]
BODY = json.dumps({"model": "m", "messages": MESSAGES, "temperature": 0.7, "max_tokens": 128}).encode()
STREAM = BODY[:-1] + b',"stream":true}'
USAGE = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29, "prompt_tokens_details": {"cached_tokens": 0}}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "y" * 350}, "finish_reason": "stop"}
ANSWER = json.dumps({"id": "chatcmpl-x", "model": "m", "choices": [CHOICE], "usage": USAGE}).encode()
CHUNK = b'data: {"id":"chatcmpl-x","model":"m","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'


def best(act: Callable[[], object], rounds: int = 400, runs: int = 200) -> float:
    """Microseconds of one run."""
    shortest = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(runs):
            act()
        shortest = min(shortest, time.perf_counter() - began)
    return shortest / runs * 1e6


def whole() -> None:
    ask = read_ask(ROUTE, BODY, 0)
    engine_body(ask, ABLE, "m", {})
    Answering(ask, ABLE, "m", True, "id").whole(ANSWER)


def main() -> None:
    ask, stream = read_ask(ROUTE, BODY, 0), read_ask(ROUTE, STREAM, 0)
    leveller = Answering(stream, ABLE, "m", True, "id").leveller()
    for name, act in (
        ("decode", lambda: decode_request(BODY)),
        ("decode and check", lambda: read_ask(ROUTE, BODY, 0)),
        ("body, unchanged", lambda: engine_body(ask, ABLE, "m", {})),
        ("body, usage asked for", lambda: engine_body(stream, ABLE, "m", {})),
        ("body, alias", lambda: engine_body(ask, ABLE, "other", {})),
        ("answer and usage", lambda: Answering(ask, ABLE, "m", True, "id").whole(ANSWER)),
        ("leveller of a stream", lambda: Answering(stream, ABLE, "m", True, "id").leveller()),
        ("chunk, unchanged", lambda: leveller.feed(CHUNK)),
        ("whole request", whole),
    ):
        print(f"{name:24} {best(act):6.2f}")


if __name__ == "__main__":
    main()
