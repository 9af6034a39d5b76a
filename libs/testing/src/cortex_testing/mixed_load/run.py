"""The mixed load from its first model to its last comparison."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from cortex_testing.mixed_load.acts import Disturber
from cortex_testing.mixed_load.books import Comparison, compare, expected_rows
from cortex_testing.mixed_load.callers import CHATS, TEXTS, Caller, Callers
from cortex_testing.mixed_load.clients import ask_on
from cortex_testing.mixed_load.kinds import KINDS
from cortex_testing.mixed_load.ledger import Ledger
from cortex_testing.mixed_load.memory import MemoryWatch
from cortex_testing.mixed_load.streams import OK
from cortex_testing.services import ServiceProcess
from cortex_testing.stack import Stack, eventually

PAGE = 1000
GENERATORS = {"mixed-a": 3, "mixed-b": 2}
"""Models and their replicas."""
EMBEDDER = "mixed-e"
SPEC: Mapping[str, Any] = {
    "engine_type": "llamacpp",
    "context_size": 2048,
    "parallel_slots": 2,
    "threads": 1,
    "cache_ram_mib": 0,
    "skip_warmup": True,
    "stop_timeout_s": 10,
}
SETTLE_S = 120.0
DUPLICATES_S = 2.0
"""How long is looked for records that come twice."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    seconds: float
    seed: int
    clients: int = 12
    think_s: float = 1.0
    pause_s: float = 5.0
    """Between two acts, about."""
    sample_s: float = 1.0


@dataclass
class Report:
    """What came of it."""

    ledger: Ledger
    comparison: Comparison
    acts: Mapping[str, int]
    act_log: list[tuple[float, str]]
    """Seconds since the start."""
    memory: MemoryWatch
    settled_s: float = 0.0

    @property
    def problems(self) -> list[str]:
        return self.ledger.faults + self.comparison.differences


@dataclass
class MixedLoad:
    """On a running stack, which is left as it was found."""

    stack: Stack
    gguf: Path
    folder: Path
    """For the log of the second gateway."""
    plan: Plan
    _keys: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def run(self) -> Report:
        """Blocks for as long as the plan says, and until everything is recorded.

        Raises:
            AssertionError: the stack does not come to what is needed.
        """
        second = self._second_gateway()
        second.start()
        try:
            self._make_models()
            self._make_keys()
            second.wait_ready()
            return asyncio.run(self._run(second))
        finally:
            second.stop()

    def clean(self) -> None:
        """Delete the models and the keys; their engines go."""
        for name in (*GENERATORS, EMBEDDER):
            self.stack.admin("DELETE", f"/admin/models/{name}")
        for key in self._keys.values():
            self.stack.admin("DELETE", f"/admin/keys/{key['id']}")
        eventually(lambda: not any("mixed-" in " ".join(one.info["cmdline"]) for one in self.stack.engines()), 60)
        for name in (*GENERATORS, EMBEDDER):
            (self.stack.models / f"{name}.gguf").unlink(missing_ok=True)

    def _second_gateway(self) -> ServiceProcess:
        secrets = json.loads((self.stack.home / "secrets.json").read_text())
        settings = {
            "CORTEX_NATS_URL": self.stack.ready["nats_url"],
            "CORTEX_SECRET_KEY": secrets["secret_key"],
            "SPOOL_DIR": str(self.stack.home / "spool"),
            "INSTANCE": "second",
            "SHUTDOWN_TIMEOUT_S": "25",
        }
        return ServiceProcess("gateway", self.folder, settings)

    def _make_models(self) -> None:
        replicas = {**GENERATORS, EMBEDDER: 1}
        for name, count in replicas.items():
            self.stack.add_gguf(self.gguf, f"{name}.gguf")
            body = {**SPEC, "name": name, "local_path": f"{name}.gguf", "replicas": count}
            body |= {"task": "embed", "pooling": "mean"} if name == EMBEDDER else {}
            made = self.stack.admin("POST", "/admin/models", body)
            assert made.status_code == 201, made.text
            self.stack.admin("POST", f"/admin/models/{name}/start").raise_for_status()
        eventually(self._all_run, timeout=SETTLE_S)

    def _all_run(self) -> bool:
        models = [self.stack.model(name) for name in (*GENERATORS, EMBEDDER)]
        healthy = (one["verdict"] == "healthy" for model in models for one in model["replica_status"])
        return all(model["state"] == "running" for model in models) and all(healthy)

    def _make_keys(self) -> None:
        for kind, described in KINDS.items():
            made = self.stack.admin("POST", "/admin/keys", {"name": f"mixed {kind}", **dict(described.limits)})
            assert made.status_code == 201, made.text
            self._keys[kind] = made.json()

    async def _run(self, second: ServiceProcess) -> Report:
        plan, first_url = self.plan, str(self.stack.ready["gateway_url"])
        keys = {kind: key["key"] for kind, key in self._keys.items()}
        callers = Callers((first_url, second.url), keys, list(GENERATORS), EMBEDDER, plan.seed)
        ledger = Ledger()
        finders = {"first": lambda: self._program("gateway"), "second, restarted": lambda: second.process}
        memory = MemoryWatch(finders, plan.sample_s)
        disturber = Disturber(self.stack, [f"{name}.gguf" for name in GENERATORS], second, plan.seed)
        await self._prepare(callers)
        memory.began = time.monotonic()
        watching = asyncio.create_task(memory.run())
        try:
            until = asyncio.get_running_loop().time() + plan.seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(plan.clients):
                    group.create_task(ask_on(callers, ledger, until, plan.think_s))
                group.create_task(asyncio.to_thread(disturber.run, memory.began + plan.seconds, plan.pause_s))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await callers.close()
        log = [(at - memory.began, name) for at, name in disturber.log]
        comparison, settled = await asyncio.to_thread(self._settle, ledger)
        return Report(ledger, comparison, disturber.acts, log, memory, settled)

    async def _prepare(self, callers: Callers) -> None:
        """Every key works at every gateway; what each prompt costs is asked, with a key that is not looked at."""
        for url in callers.gateways:
            for kind in KINDS:
                await _until_known(callers.at(url, kind))
        client = callers.at(callers.gateways[0], "chat").openai.with_options(api_key=self.stack.ready["api_key"])
        for text in CHATS:
            answer = await client.chat.completions.create(
                model=callers.models[0], messages=[{"role": "user", "content": text}], max_tokens=1
            )
            assert answer.usage is not None
            callers.prompt_tokens[text] = answer.usage.prompt_tokens
        for text in TEXTS:
            answer = await client.completions.create(model=callers.models[0], prompt=text, max_tokens=1)
            assert answer.usage is not None
            callers.prompt_tokens[text] = answer.usage.prompt_tokens

    def _settle(self, ledger: Ledger) -> tuple[Comparison, float]:
        """Wait for the records that must be there, and a little longer for any that must not."""
        began = time.monotonic()
        wanted = {kind: expected for kind in KINDS if (expected := expected_rows(ledger, kind)) >= 0}

        def recorded() -> bool:
            return all(self._count(kind) >= expected for kind, expected in wanted.items())

        with contextlib.suppress(AssertionError):  # the comparison tells what is missing
            eventually(recorded, timeout=SETTLE_S, interval=0.5)
        settled = time.monotonic() - began
        time.sleep(DUPLICATES_S)
        return compare(ledger, self._rows), settled

    def _count(self, kind: str) -> int:
        answer = self.stack.admin("GET", f"/admin/usage?key_id={self._keys[kind]['id']}&limit=1")
        if answer.status_code >= 500:
            return -1  # on its way up
        answer.raise_for_status()
        return answer.json()["totals"]["requests"]

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        query = f"/admin/usage?key_id={self._keys[kind]['id']}&limit={PAGE}"
        after = ""
        while True:
            page = self.stack.admin("GET", query + after)
            page.raise_for_status()
            rows += page.json()["items"]
            if page.json()["next"] is None:
                return rows
            after = f"&after={page.json()['next']}"

    def _program(self, name: str) -> psutil.Process | None:
        try:
            return self.stack.program(name)
        except (AssertionError, psutil.NoSuchProcess, httpx.HTTPError):
            return None


async def _until_known(caller: Caller) -> None:
    """The key has come to the gateway."""
    for _ in range(300):
        if (await caller.http.get(f"{caller.url}/v1/models", headers=caller.headers)).status_code == OK:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the key for {caller.kind} is not known at {caller.url}")
