"""Requests as people type them into a shell or a program. The key is a variable, never a secret."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

KEY_VARIABLE = "CORTEX_API_KEY"


def curl(gateway_url: str, path: str, body: Mapping[str, Any]) -> str:
    """For a shell: the body is quoted whole, so that nothing in it is run."""
    stream = " -N" if body.get("stream") else ""
    data = shlex.quote(json.dumps(body, ensure_ascii=False, indent=2))
    return (
        f"curl{stream} {shlex.quote(f'{gateway_url}/v1{path}')} \\\n"
        f'  -H "Authorization: Bearer ${KEY_VARIABLE}" \\\n'
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {data}\n"
    )


def python_chat(gateway_url: str, body: Mapping[str, Any]) -> str:
    """With the openai package."""
    arguments = "".join(
        f"    {name}={_literal(value)},\n" for name, value in body.items() if name not in ("stream", "stream_options")
    )
    return (
        _client(gateway_url) + f"stream = client.chat.completions.create(\n{arguments}    stream=True,\n)\n"
        "for chunk in stream:\n"
        "    if chunk.choices and chunk.choices[0].delta.content:\n"
        '        print(chunk.choices[0].delta.content, end="", flush=True)\n'
        "print()\n"
    )


def python_embeddings(gateway_url: str, body: Mapping[str, Any]) -> str:
    """With the openai package."""
    return (
        _client(gateway_url)
        + f"answer = client.embeddings.create(model={_literal(body.get('model'))}, input={_literal(body.get('input'))})\n"
        "for item in answer.data:\n"
        "    print(len(item.embedding), item.embedding[:4])\n"
    )


def python_rerank(gateway_url: str, body: Mapping[str, Any]) -> str:
    """With httpx: the openai package has no reranking."""
    return (
        "import os\n\nimport httpx\n\n"
        "answer = httpx.post(\n"
        f"    {_literal(f'{gateway_url}/v1/rerank')},\n"
        f'    headers={{"Authorization": f"Bearer {{os.environ[\'{KEY_VARIABLE}\']}}"}},\n'
        f"    json={_literal(dict(body))},\n"
        "    timeout=60,\n)\n"
        "answer.raise_for_status()\n"
        'for result in answer.json()["results"]:\n'
        '    print(result["index"], result["relevance_score"])\n'
    )


def _client(gateway_url: str) -> str:
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url={_literal(f"{gateway_url}/v1")}, api_key=os.environ["{KEY_VARIABLE}"])\n\n'
    )


def _literal(value: object) -> str:
    """A Python literal that is valid whatever the text holds."""
    return repr(value)
