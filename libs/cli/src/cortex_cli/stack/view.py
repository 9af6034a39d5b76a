"""How `cortex up` talks to people: steps, summary, live status."""

import contextlib
import time
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.text import Text

from cortex_cli.output import STATE_COLOURS, table
from cortex_cli.stack.ready import Ready
from cortex_cli.stack.snapshot import Snapshot


class View:
    """Prints steps as they are done; times count from the start of the command."""

    def __init__(self, console: Console, begun: float) -> None:
        self.console = console
        self._begun = begun

    @property
    def is_terminal(self) -> bool:
        """Whether a live display makes sense."""
        return self.console.is_terminal

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._begun

    def write(self, text: str = "", end: str = "\n") -> None:
        """Text as it is. Once nobody reads it any more (closed pipe or terminal) the stack runs on silently."""
        with contextlib.suppress(OSError, SystemExit):  # rich turns a broken pipe into an exit
            self.console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line with the time: of day without a terminal, since the start with one."""
        stamp = f"{self.elapsed:6.1f}s" if self.is_terminal else datetime.now().astimezone().isoformat("T", "seconds")
        self.write(f"{stamp}  {text}")

    def step(self, name: str, seconds: float) -> None:
        """A step that is done."""
        self.say(f"{name:<16} {seconds:.1f} s")


def summary(ready: Ready) -> str:
    """Addresses, key and how to call it, to be pasted as it is."""
    lines = [
        "",
        f"  console      {ready.console_url}",
        f"  OpenAI API   {ready.gateway_url}/v1",
        f"  admin API    {ready.registry_url}/admin   (token in ready.json)",
        f"  models       {ready.models_dir}",
        f"  API key      {ready.api_key}",
        "",
    ]
    return "\n".join(lines + (_calls(ready, ready.demo_model) if ready.demo_model else _NO_MODEL))


_NO_MODEL = [
    "No demo model runs. Put a GGUF file into the models folder, then:",
    "",
    "  cortex model create my-model --engine llamacpp --local-path FILE.gguf",
    "  cortex model start my-model",
    "  cortex chat my-model",
    "",
]


def _calls(ready: Ready, model: str) -> list[str]:
    return [
        "Call it with curl:",
        "",
        f"curl {ready.gateway_url}/v1/chat/completions \\",
        f"  -H 'Authorization: Bearer {ready.api_key}' -H 'Content-Type: application/json' \\",
        f'  -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}], "max_tokens": 40}}\'',
        "",
        "or with the openai package:",
        "",
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{ready.gateway_url}/v1", api_key="{ready.api_key}")',
        'messages = [{"role": "user", "content": "Say hello."}]',
        f'for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):',
        "    if chunk.choices:",
        '        print(chunk.choices[0].delta.content or "", end="")',
        "",
    ]


def render(snapshot: Snapshot, uptime_s: float) -> RenderableType:
    """The live status: processes in one line, models in a table, requests."""
    line = Text()
    for item in snapshot.processes:
        line.append("● ", style=STATE_COLOURS.get(item.phase, "dim"))
        restarts = f" ({item.restarts}x restarted)" if item.restarts else ""
        line.append(f"{item.name}{restarts}  ")
    models: RenderableType = Text("models: the registry does not answer", style="yellow")
    if snapshot.models is not None:
        rows = [(model.get("name"), model.get("state"), model.get("reason") or "") for model in snapshot.models]
        models = table(("model", "state", "reason"), rows) if rows else Text("no models yet", style="dim")
    requests = "the gateway does not answer"
    if snapshot.requests is not None:
        requests = f"{snapshot.requests} requests, {snapshot.in_flight} in flight"
    foot = Text(f"up {int(uptime_s)} s · {requests} · Ctrl-C stops everything", style="dim")
    return Group(Text(), line, models, foot)
