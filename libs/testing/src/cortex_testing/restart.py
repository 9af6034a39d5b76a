"""From the death of a gateway to the first answer of its successor."""

import time

import httpx

from cortex_testing.stack import DEMO, Stack

PATIENCE_S = 30.0
ASK_EVERY_S = 0.02


def first_answer_s(stack: Stack) -> float:
    """Kill the gateway, ask until a request for one token is answered.

    Raises:
        AssertionError: it does not come back.
    """
    body = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {stack.ready['api_key']}"}
    url = f"{stack.ready['gateway_url']}/v1/chat/completions"
    stack.kill("gateway")
    began = time.monotonic()
    last: object = None
    with httpx.Client(headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        while time.monotonic() < began + PATIENCE_S:
            try:
                answer = client.post(url, json=body)
            except httpx.TransportError as error:
                last = error
            else:
                if answer.is_success:
                    return time.monotonic() - began
                last = answer.text
            time.sleep(ASK_EVERY_S)
    raise AssertionError(f"no answer within {PATIENCE_S} s; last: {last}")
