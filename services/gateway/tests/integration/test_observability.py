"""What Prometheus and an OpenTelemetry collector are told of real requests to a real llama-server."""

import asyncio
import contextlib
import gzip
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from cortex_contracts.envelope import Envelope, split_batch
from cortex_contracts.events import UsageRecordedV1

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET_WORDS = "a prompt that must stay here"


class Collector:
    """An OTLP receiver over HTTP, as the specification has it."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, Any], Span]] = []
        self.raw: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            resource = attributes(group.resource.attributes)
            self.spans += [(resource, span) for scope in group.scope_spans for span in scope.spans]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.spans) < count:
                await asyncio.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(pairs) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Tap:
    """Stands before an engine and remembers the heads of what it is asked."""

    def __init__(self, llama) -> None:
        self.model_id, self.replica_id, self.alias, self.ordinal = llama.model_id, llama.replica_id, llama.alias, 0
        self.heads: list[str] = []
        self.port = 0
        self._engine_port = llama.port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._engine_port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, note: bool) -> None:
            with contextlib.suppress(OSError):
                while chunk := await source.read(65536):
                    if note and b"HTTP/1.1\r\n" in chunk:
                        self.heads.append(chunk.partition(b"\r\n\r\n")[0].decode().lower())
                    sink.write(chunk)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, other_writer, note=True), pump(other_reader, writer, note=False))


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
async def tap(llama) -> AsyncIterator[Tap]:
    made = Tap(llama)
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def scrape(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def total(page, name: str, **labels: str) -> float:
    """Sum of all samples of that name with at least these labels."""
    wanted = labels.items()
    return sum(value for (sample, found), value in page.items() if sample == name and wanted <= dict(found).items())


async def talk(
    world, secret: str, model: str, *, stream: bool = False, headers: dict[str, str] | None = None, n: int = 6
):
    messages: Any = [{"role": "user", "content": SECRET_WORDS}]
    options: Any = {"extra_body": {"ignore_eos": True}, "extra_headers": headers or {}}
    async with world.client(secret) as client:
        if not stream:
            return await client.chat.completions.create(model=model, messages=messages, max_tokens=n, **options)
        parts = await client.chat.completions.create(
            model=model, messages=messages, max_tokens=n, stream=True, stream_options={"include_usage": True}, **options
        )
        chunks = [chunk async for chunk in parts]
        return chunks[-1]


def exporter_is_loaded(world) -> bool:
    """Whether protobuf's library, which only the exporter needs, is mapped into the gateway's memory."""
    return "google/_upb" in Path(f"/proc/{world.gateway._process.pid}/maps").read_text()


async def test_a_trace_goes_on_through_the_gateway_to_the_engine_and_the_usage_record(
    new_world, nats_url: str, tap: Tap, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    world = await new_world(nats_url, otel_endpoint=collector.url)
    secret = await world.serve(tap)
    assert exporter_is_loaded(world)
    await world.bus.js.purge_stream("USAGE")
    answer = await talk(world, secret, tap.alias, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    await collector.until(1)
    resource, span = collector.spans[0]
    told = attributes(span.attributes)
    assert resource["service.name"] == "cortex-gateway"
    assert resource["deployment.environment.name"] == "test"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == f"chat {tap.alias}"
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "llama.cpp"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == tap.alias
    assert told["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens
    assert told["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens == 6
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", tap.port)
    assert told["http.response.status_code"] == 200
    assert "error.type" not in told
    assert span.end_time_unix_nano > span.start_time_unix_nano
    assert not span.events
    assert all(SECRET_WORDS.encode() not in body for body in collector.raw)

    own = f"00-{TRACE}-{span.span_id.hex()}-01"
    assert f"traceparent: {own}" in tap.heads[-1]
    async with asyncio.timeout(10):
        while not (await world.bus.js.stream_info("USAGE")).state.messages:
            await asyncio.sleep(0.05)
    message = await world.bus.js.get_last_msg("USAGE", "usage.recorded")
    envelope = Envelope[UsageRecordedV1].model_validate_json(split_batch(message.data)[-1])
    assert envelope.traceparent == own

    await talk(world, secret, tap.alias, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert f"traceparent: 00-{TRACE}-{PARENT}-00" in tap.heads[-1], "not sampled by its parent: passed on as it is"
    await talk(world, secret, tap.alias, stream=True, headers={"traceparent": "00-not-a-trace\r\n"[:-2]})
    await collector.until(2)
    _, own_root = collector.spans[1]
    assert own_root.trace_id.hex() != TRACE
    assert not own_root.parent_span_id
    assert attributes(own_root.attributes)["gen_ai.response.time_to_first_chunk"] > 0
    with pytest.raises(openai.NotFoundError):
        await talk(world, secret, "no-such-model")
    await collector.until(3)
    _, failed = collector.spans[2]
    assert (failed.name, attributes(failed.attributes)["error.type"]) == ("chat", "404")
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert len(collector.spans) == 3


async def test_without_a_collector_a_trace_is_passed_on_and_nothing_else_happens(new_world, nats_url: str, tap: Tap):
    world = await new_world(nats_url)
    secret = await world.serve(tap)
    await talk(world, secret, tap.alias, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert f"traceparent: 00-{TRACE}-{PARENT}-01" in tap.heads[-1]
    await talk(world, secret, tap.alias, headers={"traceparent": "00-zz-zz-01"})
    await talk(world, secret, tap.alias)
    assert all("traceparent" not in head for head in tap.heads[-2:])
    assert not exporter_is_loaded(world), "OpenTelemetry's exporter was loaded for nothing"


async def test_a_page_of_metrics_tells_what_was_done_for_which_model_and_by_whom(new_world, nats_url: str, llama):
    world = await new_world(nats_url)
    secret = await world.serve(llama)
    whole = await talk(world, secret, llama.alias)
    streamed = await talk(world, secret, llama.alias, stream=True, n=8)
    for name in ("no-such-model", "nor-this-one"):
        with pytest.raises(openai.NotFoundError):
            await talk(world, secret, name)
    with pytest.raises(openai.AuthenticationError):
        await talk(world, "ctx-wrong", llama.alias)
    page = await scrape(world.gateway.url)
    model = {"model": llama.alias, "engine_type": "llamacpp"}
    usage = (whole.usage, streamed.usage)
    assert total(page, "gateway_tokens_total", kind="prompt", **model) == sum(one.prompt_tokens for one in usage)
    assert total(page, "gateway_tokens_total", kind="completion", **model) == 14
    assert total(page, "gateway_model_requests_total", outcome="completed", **model) == 2
    assert total(page, "gateway_model_requests_total", model="unknown", outcome="rejected") == 2
    assert total(page, "gateway_ttft_seconds_count", **model) == 1
    assert total(page, "gateway_inter_token_seconds_count", **model) == 1
    assert 0 < total(page, "gateway_inter_token_seconds_sum", **model) < 10
    path = "/v1/chat/completions"
    by_replica = {"path": path, "replica": llama.replica_id}
    assert total(page, "gateway_upstream_selected_total", **by_replica) == 2
    assert total(page, "gateway_upstream_selected_by_engine_total", engine_type="llamacpp", **by_replica) == 2
    assert total(page, "gateway_upstream_latency_by_engine_seconds_count", path=path, engine_type="llamacpp") == 2
    assert total(page, "gateway_upstream_latency_seconds_count", path=path) == 2
    assert total(page, "gateway_upstream_success_total", path=path) == 2
    assert total(page, "gateway_upstream_health", replica=llama.replica_id, **model) == 1
    assert total(page, "gateway_key_auth_blocked_total", reason="invalid_api_key") == 1
    assert total(page, "gateway_key_auth_allowed_total") >= 4
    assert total(page, "gateway_requests_total", route=path, status="200") == 2
    assert total(page, "gateway_requests_total", route=path, status="404") == 2
    values = {value for _, labels in page for _, value in labels}
    assert not {"no-such-model", "nor-this-one", secret} & values, "what clients send is no label"
