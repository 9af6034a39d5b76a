"""What engines say, under one set of names, and what hostile ones say."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import EngineType, Verdict
from cortex_health.adapters.exporter import EngineExporter
from cortex_health.domain.engine_metrics import FAMILIES, MAX_LINES, EngineSample, read_metrics, with_rates
from cortex_health.domain.verdicts import HealthState

LLAMA, VLLM = EngineType.LLAMACPP, EngineType.VLLM
LLAMA_TEXT = b"""# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 40
llamacpp:prompt_tokens_cached_total 60
llamacpp:tokens_predicted_total 30
llamacpp:n_decode_total 31
llamacpp:spec_decode_num_draft_tokens_total 10
llamacpp:spec_decode_num_accepted_tokens_total 7
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""
VLLM_TEXT = b"""vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.126
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} 50.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 3.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 25.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5
"""


def test_a_llama_server_is_told_in_our_names():
    sample = read_metrics(LLAMA, LLAMA_TEXT)
    assert sample is not None
    assert sample.load == EngineLoad(running=1, waiting=2, work_total=101)
    assert sample.values == {
        "prompt_tokens_total": 100,
        "cached_prompt_tokens_total": 60,
        "generated_tokens_total": 30,
        "draft_tokens_total": 10,
        "accepted_tokens_total": 7,
        "prefix_cache_hit_ratio": 0.6,
        "draft_acceptance_ratio": 0.7,
    }


def test_a_vllm_is_told_in_the_same_names():
    sample = read_metrics(VLLM, VLLM_TEXT)
    assert sample is not None
    assert sample.load == EngineLoad(running=3, waiting=4, work_total=155, kv_usage=0.5)
    assert sample.values["requests_total"] == 5
    assert sample.values["prefix_cache_hit_ratio"] == 0.25
    histogram = sample.histograms["time_to_first_token_seconds"]
    assert histogram.buckets == ((0.1, 3.0), (float("inf"), 5.0))
    assert histogram.total == 1.5


def test_rates_are_those_of_the_time_between_two_readings_and_none_after_a_restart():
    one, two = (EngineSample(EngineLoad(), {"generated_tokens_total": total}) for total in (10.0, 40.0))
    assert with_rates(two, one, 2.0).values["generated_tokens_per_second"] == 15.0
    assert "generated_tokens_per_second" not in with_rates(one, two, 2.0).values
    assert "generated_tokens_per_second" not in with_rates(one, None, 2.0).values


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:num_requests_running{model_name="a} b\\" ,le=\\"7"} 1',
        b"vllm:num_requests_running 1 1700000000",
        b'vllm:num_requests_running{le="x"}1',
    ],
)
def test_odd_but_legal_lines_are_read(line: bytes):
    sample = read_metrics(VLLM, line)
    assert sample is not None
    assert sample.load.running == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"vllm:num_requests_running",
        b"vllm:num_requests_running nan",
        b"vllm:num_requests_running -1",
        b"vllm:num_requests_running inf",
        b"vllm:num_requests_running{a=b} 1",
        b'vllm:num_requests_running{a="b" 1',
        b'vllm:num_requests_running{a="' + b"\\" * 3999 + b'"} 1',
        b'vllm:num_requests_running{a="' + b"x" * 10_000 + b'"} 1',
        b"\xff\xfe\x00 1",
    ],
)
def test_what_cannot_be_read_is_left_out(line: bytes):
    assert read_metrics(VLLM, line) is None


@given(st.binary(max_size=400))
def test_no_bytes_are_an_exception(noise: bytes):
    read_metrics(VLLM, VLLM_TEXT + noise)
    read_metrics(LLAMA, noise)


def test_a_flood_of_lines_and_buckets_is_bounded():
    bucket = b'vllm:time_to_first_token_seconds_bucket{le="%d"} 1\n'
    flood = VLLM_TEXT + b"".join(bucket % n for n in range(3 * MAX_LINES))
    started = time.process_time()
    sample = read_metrics(VLLM, flood)
    assert time.process_time() - started < 5
    assert sample is not None
    assert "time_to_first_token_seconds" not in sample.histograms


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self):
        raise AssertionError


def test_the_page_shows_what_is_probed_here_and_nothing_of_what_is_gone(make_replica):
    clock = Clock()
    exporter = EngineExporter(clock, lambda model_id: 'gpt "oss"\n')
    registry = CollectorRegistry()
    registry.register(exporter)
    replica = make_replica()
    state = HealthState(
        started_at=replica.since, verdict=Verdict.HEALTHY, load=EngineLoad(slots_total=4, context_per_slot=2048)
    )
    exporter.show(replica, state)
    exporter.sampled(replica, read_metrics(VLLM, VLLM_TEXT))
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    names = {f"cortex_engine_{family.name.removesuffix('_total')}" for family in FAMILIES}
    assert families.keys() <= names
    labels = {"engine_type": "llamacpp", "model": 'gpt "oss"\n', "replica": replica.id}
    by_name = {sample.name: sample for family in families.values() for sample in family.samples}
    assert by_name["cortex_engine_slots"].labels == labels
    assert by_name["cortex_engine_healthy"].value == by_name["cortex_engine_up"].value == 1
    assert by_name["cortex_engine_prompt_tokens_total"].value == 100
    assert by_name["cortex_engine_time_to_first_token_seconds_count"].value == 5
    exporter.sampled(replica, None)
    page = generate_latest(registry).decode()
    assert "cortex_engine_up{" in page
    assert "cortex_engine_requests_running" not in page
    exporter.drop(replica.id)
    assert generate_latest(registry) == b""


def test_what_a_real_vllm_said_is_read_whole():
    """Recorded from vLLM 0.32 after two completions of twelve tokens each."""
    sample = read_metrics(VLLM, (Path(__file__).parent / "data" / "vllm-0.32.txt").read_bytes())
    assert sample is not None
    assert (sample.load.running, sample.load.waiting, sample.load.kv_usage) == (0, 0, 0.0)
    assert sample.values["prompt_tokens_total"] == 18
    assert sample.values["generated_tokens_total"] == 24
    assert sample.values["requests_total"] == 2
    assert sample.values["preemptions_total"] == 0
    assert set(sample.histograms) == {family.name for family in FAMILIES if family.kind == "histogram"}
    assert sample.histograms["time_to_first_token_seconds"].buckets[-1][1] == 2
    assert sample.histograms["request_seconds"].total > 0
