"""Hosts, their memory and GPUs, what they did lately, and whether everything is in order."""

import asyncio
from datetime import UTC, datetime

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components import table
from cortex_console.components.badge import stat, tag
from cortex_console.components.buttons import button
from cortex_console.components.chart import Chart, line_chart
from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.moments import meter
from cortex_console.components.page import Page, PageContext
from cortex_console.components.soon import soon
from cortex_console.components.text import Text, box, card, hint
from cortex_console.domain.formatting import NOTHING, bytes_text, count_text, duration_text, rate_text, time_cells
from cortex_console.domain.hosts import Device, Host, Trends, findings, load_tone, trends
from cortex_console.domain.shapes import Row, number, row, rows, text
from cortex_console.domain.states import Tone, engine_name
from cortex_console.errors import ConsoleError
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

REFRESH_S = 10.0
WINDOW_S = 300
MINUTES = {"15": "Last 15 minutes", "60": "Last hour"}
_FEATURES = {
    "hub_lookups": "Lookups at Hugging Face",
    "self_service_keys": "API keys that users make themselves",
    "gpus": "GPUs",
    "containers": "Engines in containers",
}
_TONES = {"ok": Tone.GOOD, "warning": Tone.WARN, "failed": Tone.BAD}
_LOADS = (
    table.Column("model", "Model"),
    table.Column("requests", "Req/s", align="right", sort_by="requests_sort"),
    table.Column("tokens", "Tok/s", align="right", sort_by="tokens_sort"),
    table.Column("failed", "Failed", align="right"),
    table.Column("ttft", "First token", align="right"),
    table.Column("duration", "Took", align="right"),
)
_IMAGES = (
    table.Column("reference", "Image", table.MONO, wide=True),
    table.Column("node", "Host"),
    table.Column("state", "There", table.BADGE),
    table.Column("default", "Default of"),
    table.Column("size", "Size", align="right", sort_by="size_sort"),
    table.Column("created", "Made", table.TIME, sort_by="created_at"),
)


class SystemPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = WatchingApi(context.api)
        self._trends = Trends({}, {}, {}, {})
        self._charts: list[Chart] = []

    async def build(self) -> None:
        """Draw it."""
        page_header("System", "Where engines run, what is promised of it, and whether everything is in order.")
        self._stats = box("c-stats")
        self._hosts = box("c-stack")
        await self._read()
        self._make_charts()
        if self._context.may(Right.USAGE_READ):
            with card("Throughput of the last 5 minutes"):
                self._no_loads = Text("p", "Nothing was asked in this time.", "c-hint")
                self._loads = table.Table("Throughput by model", _LOADS, key="model")
                self._loads.element.visible = False
        with card():
            with box("c-line"):
                Text("h2", "Checks", "c-h2 c-grow")
                button("Check again", self._examine, icon="o_fact_check")
            self._checks = box("c-list")
            with self._checks:
                ui.skeleton(height="80px")
        with box("c-columns"):
            with card("What this installation can do"):
                self._features = box("c-list")
            with card("Engine images"):
                self._images = box("c-stack")
        await self._read_trends()
        soon(self._read_slow)
        self._context.on_events(self._on_events)
        ui.timer(REFRESH_S, self._refresh, immediate=False)

    def _make_charts(self) -> None:
        context = self._context
        with box("c-filters"):
            self._minutes = ui.select(MINUTES, value="15", on_change=self._read_trends)
            self._minutes.props('outlined dense options-dense aria-label="Span of time"').classes("c-select")
        with box("c-columns"):
            with card():
                self._charts.append(line_chart(context, "Processors", "% of all cores", lambda: self._trends.cpu))
            with card():
                self._charts.append(line_chart(context, "Memory in use", "%", lambda: self._trends.memory))
            if self._has_gpus:
                with card():
                    self._charts.append(line_chart(context, "GPUs at work", "%", lambda: self._trends.gpu))
                with card():
                    self._charts.append(line_chart(context, "GPU memory in use", "%", lambda: self._trends.gpu_memory))

    async def _refresh(self) -> None:
        await asyncio.gather(self._read(), self._read_trends(), self._read_loads())

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("node.", "container."):
            await self._read()

    async def _read(self) -> None:
        nodes, gpus, summary, models = await asyncio.gather(
            self._api.items("/nodes"),
            self._api.items("/system/gpus"),
            self._context.api.get("/system/summary"),
            ModelsApi(self._context.api).list_all(),
        )
        names = {model.id: model.name for model in models}
        hosts = [Host.of(node, gpus, names) for node in nodes]
        self._has_gpus = any(host.gpus for host in hosts)
        self._show_stats(summary)
        self._hosts.clear()
        with self._hosts:
            if not hosts:
                empty_state("o_dns", "No host", "No orchestrator has told of its host yet. Start one there.")
            for host in hosts:
                _show_host(host)

    def _show_stats(self, summary: Row) -> None:
        resources, replicas = row(summary.get("resources")), row(summary.get("replicas"))
        memory, free = number(resources.get("memory_total")), number(resources.get("memory_available"))
        gpus = int(number(resources.get("gpus")) or 0)
        self._stats.clear()
        with self._stats:
            stat("Hosts", count_text(number(resources.get("hosts"))), f"{_count(resources, 'cpu_count')} cores")
            stat("Memory free", bytes_text(free), f"of {bytes_text(memory)}")
            if gpus:
                total, left = number(resources.get("gpu_memory_total")), number(resources.get("gpu_memory_free"))
                stat("GPUs", str(gpus), f"{bytes_text(left)} of {bytes_text(total)} free")
            else:
                stat("GPUs", "none", "models run on processors")
            others = [f"{amount} {state}" for state, amount in replicas.items() if state != "started"]
            stat("Engines", _count(replicas, "started"), ", ".join(others) or "all started")

    async def _read_trends(self) -> None:
        answer = await self._context.api.get("/system/host/trends", {"minutes": self._minutes.value})
        self._trends = trends(answer)
        for chart in self._charts:
            chart.update()

    async def _read_loads(self) -> None:
        if not self._context.may(Right.USAGE_READ):
            return
        models = row((await self._api.throughput(WINDOW_S)).get("models"))
        self._loads.show([_load_row(name, row(sums)) for name, sums in models.items()])
        self._loads.element.visible = bool(models)
        self._no_loads.visible = not models

    async def _read_slow(self) -> None:
        await asyncio.gather(self._read_loads(), self._examine(), self._read_images(), self._read_features())

    async def _examine(self) -> None:
        try:
            examination = await self._context.api.get("/doctor")
        except ConsoleError as error:
            self._checks.clear()
            with self._checks:
                Text("p", f"{error.message} {error.code}", "c-hint")
            return
        self._checks.clear()
        with self._checks:
            found = findings(examination)
            fine = [one for one in found if one.get("verdict") == "ok"]
            for finding in found:
                if finding not in fine:
                    _show_finding(finding)
            with ui.element("details").classes("c-fine"):
                Text("summary", f"{len(fine)} of {len(found)} checks are fine", "c-strong")
                for finding in fine:
                    _show_finding(finding)

    async def _read_images(self) -> None:
        hosts = await self._api.items("/system/docker-images")
        now = datetime.now(UTC)
        made = [_image_row(text(host.get("node")), one, now) for host in hosts for one in rows(host.get("images"))]
        self._images.clear()
        with self._images:
            for host in hosts:
                if host.get("reason"):
                    hint(f"{text(host.get('node'))}: {text(host.get('reason'))}.")
            if made:
                table.Table("Engine images", _IMAGES).show(made)
            elif not hosts:
                hint("No host has told of its images.")

    async def _read_features(self) -> None:
        answer = await self._context.api.get("/system/capabilities")
        self._features.clear()
        with self._features:
            for feature in rows(answer.get("features")):
                there = bool(feature.get("available"))
                with box("c-list-row"):
                    Text("span", "yes" if there else "no", f"c-badge c-dot c-{'good' if there else 'neutral'}")
                    name = text(feature.get("name"))
                    Text("span", _FEATURES.get(name, name.replace("_", " ").capitalize()))
                    Text("span", text(feature.get("reason")), "c-grow c-muted")
            hint(f"Cortex {text(answer.get('version'))}")


def _show_host(host: Host) -> None:
    with card():
        with box("c-line"):
            Text("h2", host.hostname, "c-h2")
            tag(host.runtime)
            if host.node != host.hostname:
                Text("span", f"node {host.node}", "c-hint")
            if host.engines:
                Text("span", host.engines, "c-hint")
        with box("c-host"):
            with box("c-device"):
                share = host.cpu_percent / 100 if host.cpu_percent is not None else 0.0
                used = f"{host.cpu_percent:.0f} %" if host.cpu_percent is not None else NOTHING
                _device_head("Processors", used)
                meter(f"Processors of {host.hostname}", share, load_tone(share))
                hint(f"{host.cpu_count} cores")
            _show_device(host.memory, host.hostname)
            for gpu in host.gpus:
                _show_device(gpu, host.hostname)


def _show_device(device: Device, hostname: str) -> None:
    with box("c-device"):
        busy = f", {device.utilization:.0f} % at work" if device.utilization is not None else ""
        _device_head(device.name, f"{device.used_share * 100:.0f} %{busy}")
        meter(f"{device.name} of {hostname} in use", device.used_share, load_tone(device.used_share))
        hint(device.words)
        if device.models:
            hint(f"Models: {', '.join(device.models)}")


def _device_head(name: str, value: str) -> None:
    with box("c-device-head"):
        Text("span", name, "c-strong")
        Text("span", value, "c-nowrap")


def _show_finding(finding: Row) -> None:
    verdict = text(finding.get("verdict"))
    with box("c-list-row"):
        Text("span", verdict, f"c-badge c-dot c-{_TONES.get(verdict, Tone.NEUTRAL).value}")
        Text("span", f"{text(finding.get('where'))}: {text(finding.get('name'))}", "c-nowrap c-finding-name")
        with box("c-grow c-two"):
            Text("span", text(finding.get("found")))
            if finding.get("fix"):
                Text("span", text(finding.get("fix")), "c-hint")


def _load_row(name: str, sums: Row) -> dict[str, object]:
    requests, tokens = number(sums.get("requests_per_second")), number(sums.get("tokens_per_second"))
    return {
        "model": name,
        "requests": rate_text(requests),
        "requests_sort": requests or 0,
        "tokens": rate_text(tokens),
        "tokens_sort": tokens or 0,
        "failed": _count(sums, "failed"),
        "ttft": _ms(sums.get("ttft_ms_p50")),
        "duration": _ms(sums.get("duration_ms_p50")),
    }


def _image_row(node: str, image: Row, now: datetime) -> dict[str, object]:
    present, default = bool(image.get("present")), text(image.get("default_of"))
    return {
        "id": f"{node} {text(image.get('reference'))}",
        "reference": text(image.get("reference")),
        "node": node,
        "state": "yes" if present else "not yet",
        "state_tone": "good" if present else "neutral",
        "default": engine_name(default) if default else NOTHING,
        "size": bytes_text(number(image.get("size"))),
        "size_sort": number(image.get("size")) or 0,
    } | time_cells("created", image.get("created_at"), now)


def _count(sums: Row, name: str) -> str:
    return f"{number(sums.get(name)) or 0:.0f}"


def _ms(value: object) -> str:
    found = number(value)
    return NOTHING if found is None else duration_text(found / 1000)


async def build(context: PageContext) -> None:
    """Draw the page."""
    await SystemPage(context).build()


SYSTEM = Page("/system", "System", build, Right.SYSTEM_READ, icon="o_dns", group="Observe")
