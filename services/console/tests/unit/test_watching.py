"""What the pages that watch decide."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cortex_console.adapters.watching_api import LogPart, read_log
from cortex_console.components import chart
from cortex_console.domain.attention import first_steps, notices
from cortex_console.domain.event_words import Happening, chain, matches, topic
from cortex_console.domain.fixes import find_fix, without_option
from cortex_console.domain.hosts import Host, findings, load_tone, trends
from cortex_console.domain.log_lines import Severity, marked
from cortex_console.domain.model_detail import Diagnosis, ModelDetail, Replica, progress, replica_row
from cortex_console.domain.models import ModelSummary
from cortex_console.domain.rates import per_token_ms, rates
from cortex_console.domain.states import Tone
from cortex_console.domain.timeline import segments, state_turns, unknown_share
from cortex_console.domain.upstreams import Upstream, counts, upstream_row
from cortex_console.domain.why_tree import Why, in_console

NOW = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
GIB = 1 << 30


def ago(**passed: float) -> str:
    return (NOW - timedelta(**passed)).isoformat()


def turned(state: str, reason: str = "", **passed: float) -> dict[str, Any]:
    return {"time": ago(**passed), "data": {"state": state, "reason": reason, "since": ago(**passed)}}


# Timeline


def test_states_follow_each_other_without_gaps_and_fill_the_line() -> None:
    turns = state_turns([turned("running", minutes=30), turned("starting", minutes=45), turned("failed", minutes=15)])
    parts = segments(turns, NOW - timedelta(hours=1), NOW)
    assert [(part.state, part.tone, part.share) for part in parts] == [
        ("starting", Tone.BUSY, 0.25),
        ("running", Tone.GOOD, 0.25),
        ("failed", Tone.BAD, 0.25),
    ]
    assert unknown_share(turns, NOW - timedelta(hours=1), NOW) == 0.25


def test_a_state_that_began_before_the_line_is_cut_at_its_beginning() -> None:
    parts = segments(state_turns([turned("running", "1 replica healthy", days=3)]), NOW - timedelta(hours=1), NOW)
    assert [(part.state, part.share) for part in parts] == [("running", 1.0)]
    assert "running for 3 d 0 h" in parts[0].words
    assert "1 replica healthy" in parts[0].words


def test_without_turns_nothing_is_known() -> None:
    assert segments([], NOW - timedelta(hours=1), NOW) == []
    assert unknown_share([], NOW - timedelta(hours=1), NOW) == 1.0


# Diagnosis and its fix


@pytest.mark.parametrize(
    ("words", "option", "left"),
    [
        (["--a", "1", "--b"], "--a", ["--b"]),
        (["--a=1", "--b"], "--a", ["--b"]),
        (["--b", "--a", "-1", "x"], "--a", ["--b"]),
        (["--b", "2"], "--a", ["--b", "2"]),
        (["-x", "-y"], "-x", ["-y"]),
        (["--a", "1", "--a", "2", "--c"], "--a", ["--c"]),
    ],
)
def test_an_option_leaves_with_its_values(words: list[str], option: str, left: list[str]) -> None:
    assert without_option(words, option) == left


@pytest.mark.parametrize(
    ("diagnosis", "answer", "label", "patch"),
    [
        pytest.param(
            Diagnosis("engine_option_unsupported", "This llama-server does not know --nope in extra_args.", ""),
            {"extra_args": ["--nope", "3", "--verbose"]},
            "Remove --nope and start",
            {"extra_args": ["--verbose"]},
            id="an option that the build does not have",
        ),
        pytest.param(
            Diagnosis("unknown_argument", "This build does not know the argument --x.", "Take it out of extra_args."),
            {"extra_args": ["--y"]},
            "Try again",
            {},
            id="an option that is not in extra_args",
        ),
        pytest.param(
            Diagnosis("no_room", "It takes 864 GiB.", "Something that would fit: context_size 65536: the largest"),
            {"context_size": 40_000_000},
            "Set context_size to 65536 and start",
            {"context_size": 65536},
            id="too large",
        ),
        pytest.param(
            Diagnosis("kv_cache_too_small", "…", "Set max_model_len to 4096 or less, or raise gpu_memory_utilization"),
            {"max_model_len": 32768},
            "Set max_model_len to 4096 and start",
            {"max_model_len": 4096},
            id="a context that does not fit",
        ),
        pytest.param(
            Diagnosis("needs_flash_attention", "…", "…"),
            {"flash_attention": False},
            "Set flash_attention to on and start",
            {"flash_attention": True},
            id="flash attention",
        ),
        pytest.param(
            Diagnosis("startup_timeout", "…", "…"),
            {"startup_timeout_s": 600},
            "Allow 20 min 0 s and start",
            {"startup_timeout_s": 1200},
            id="too slow",
        ),
        pytest.param(
            Diagnosis("draft_unusable", "…", "…"),
            {"draft_model_path": "d.gguf"},
            "Start without draft_model_path",
            {"draft_model_path": None},
            id="a draft model",
        ),
        pytest.param(Diagnosis("file_corrupt", "…", "Copy it again."), {}, "Try again", {}, id="what no setting mends"),
    ],
)
def test_a_diagnosis_leads_to_a_fix(
    diagnosis: Diagnosis, answer: Mapping[str, object], label: str, patch: Mapping[str, object]
) -> None:
    fix = find_fix(diagnosis, answer)
    assert (fix.label, dict(fix.patch)) == (label, patch)
    assert fix.consequences
    assert fix.first == ("" if patch else diagnosis.fix)


# One model


def replica(**fields: object) -> Replica:
    return Replica.of({"id": "m-0", "node": "n", "ordinal": 0, "state": "started", "since": ago(seconds=30)} | fields)


@pytest.mark.parametrize(
    ("fields", "words", "share"),
    [
        ({"state": "pulling"}, "Pulling the image", None),
        (
            {"state": "pulling", "pull": {"current_bytes": GIB, "total_bytes": 4 * GIB}},
            "Pulling the image: 1.0 GiB of 4.0 GiB",
            0.25,
        ),
        ({"state": "started", "verdict": "loading"}, "Loading for 30 s", None),
        (
            {"state": "started", "verdict": None, "load_seconds": 60},
            "Loading for 30 s; it took 1 min 0 s the last time",
            0.5,
        ),
    ],
)
def test_the_progress_of_a_start(fields: dict[str, object], words: str, share: float | None) -> None:
    found = progress(replica(**fields), NOW)
    assert found is not None
    assert (found.words, found.share) == (words, share)


@pytest.mark.parametrize("fields", [{"verdict": "healthy"}, {"state": "failed"}, {"state": "stopped"}])
def test_what_is_not_coming_has_no_progress(fields: dict[str, object]) -> None:
    assert progress(replica(**fields), NOW) is None


def test_loads_of_replicas_are_added_and_the_fullest_cache_counts() -> None:
    loads = [
        {"running": 1, "waiting": 0, "slots_total": 4, "kv_usage": 0.2},
        {"running": 2, "waiting": 3, "slots_total": 4, "kv_usage": 0.7},
    ]
    replicas = [{"id": f"m-{n}", "state": "started", "load": load} for n, load in enumerate(loads)]
    detail = ModelDetail.of({"id": "m", "replica_status": replicas, "placement": [0, 1], "lifecycle": "on_demand"})
    load = detail.load()
    assert (load.running, load.waiting, load.slots, load.kv_usage) == (3, 3, 8, 0.7)
    assert load.words == "3 of 8 busy, 3 waiting"
    assert detail.settings()["Placement"] == "GPU 0, GPU 1"
    assert detail.settings()["Lifecycle"] == "on demand"
    assert detail.troubled is None


def test_a_failed_replica_tells_its_diagnosis() -> None:
    failed = {"id": "m-0", "state": "failed", "reason": "why", "diagnosis": {"code": "c", "message": "m", "fix": "f"}}
    detail = ModelDetail.of({"id": "m", "replica_status": [failed]})
    assert detail.troubled is not None
    assert detail.troubled.diagnosis == Diagnosis("c", "m", "f")
    row = replica_row(detail.replicas[0])
    assert (row["state_tone"], row["verdict"], row["load"], row["kv"]) == ("bad", "unknown", "–", "–")


@pytest.mark.parametrize(
    ("state", "wanted", "told"),
    [("starting", True, True), ("failed", True, True), ("running", True, False), ("starting", False, False)],
)
def test_what_failed_is_told_while_it_is_tried_again(state: str, wanted: bool, told: bool) -> None:
    before = replica(state="failed", diagnosis={"code": "c", "message": "m", "fix": "f"})
    answer = {"state": state, "desired_state": "running" if wanted else "stopped", "replica_status": []}
    assert ModelDetail.of(answer).trouble(before) is (before if told else None)
    assert ModelDetail.of(answer).trouble(None) is None


# Events


def happened(sequence: int, type_: str, cause: str = "", **data: object) -> Happening:
    return Happening.of({"sequence": sequence, "id": f"e{sequence}", "type": type_, "causationid": cause, "data": data})


@pytest.mark.parametrize(
    ("event", "words", "tone"),
    [
        (
            happened(1, "model.state_changed.v1", previous="loading", state="running", reason="1 replica healthy"),
            "loading → running: 1 replica healthy",
            Tone.GOOD,
        ),
        (
            happened(1, "container.failed.v1", reason="r", exit_code=1, diagnosis={"message": "The file is damaged."}),
            "The file is damaged. (exit code 1)",
            Tone.BAD,
        ),
        (
            happened(1, "container.pulling.v1", image="vllm", current_bytes=GIB, total_bytes=2 * GIB),
            "vllm: 1.0 GiB of 2.0 GiB",
            Tone.BUSY,
        ),
        (
            happened(1, "placement.rejected.v1", reason="No room.", would_fit=["ngl 3"]),
            "No room. Would fit: ngl 3.",
            Tone.BAD,
        ),
        (happened(1, "model.updated.v1", name="m", changed=["replicas"]), "m: replicas", Tone.NEUTRAL),
        (happened(1, "something.new.v2"), "", Tone.NEUTRAL),
    ],
)
def test_events_are_told_in_words(event: Happening, words: str, tone: Tone) -> None:
    assert (event.words, event.tone) == (words, tone)


@pytest.mark.parametrize(
    ("pattern", "name", "taken"),
    [
        ("*", "a.b", True),
        ("model.*", "model.created", True),
        ("model.*", "container.failed", False),
        ("model.created", "model.created", True),
        ("*.failed", "container.failed", True),
        ("model", "model.created", False),
    ],
)
def test_patterns_of_types(pattern: str, name: str, taken: bool) -> None:
    assert matches(pattern, name) is taken
    assert topic(f"{name}.v1") == name


def test_a_chain_shows_each_event_below_its_cause() -> None:
    events = [happened(4, "d.d", "e1"), happened(2, "b.b", "e1"), happened(1, "a.a", "gone"), happened(3, "c.c", "e2")]
    assert [(depth, one.sequence) for depth, one in chain(events)] == [(0, 1), (1, 2), (2, 3), (1, 4)]


def test_a_circle_of_causes_ends() -> None:
    assert chain([happened(1, "a.a", "e1")]) == [(0, happened(1, "a.a", "e1"))]


# Why


def test_the_tree_of_causes_is_read_with_its_depth() -> None:
    child = {
        "kind": "container",
        "sentence": "Replica 0 failed.",
        "type": "container.failed.v1",
        "after_s": 0.25,
        "details": {"exit_code": 1, "log_tail": ["error"], "changed": []},
        "children": [],
    }
    root = {"kind": "request", "sentence": "alice asked it to run.", "type": None, "children": [child]}
    why = Why.of({"headline": "h", "next_step": "Start it: cortex model start m.", "root": root, "omitted": 2})
    assert why.root is not None
    (step,) = why.root.children
    assert (why.next_step, why.omitted, why.root.tone) == ("Start it.", 2, Tone.NEUTRAL)
    assert (step.after, step.tone, dict(step.facts), step.log_tail) == (
        "+250 ms",
        Tone.BAD,
        {"Exit code": "1"},
        ("error",),
    )


def test_next_steps_name_no_commands_that_the_page_makes_needless() -> None:
    assert in_console("Read what the engine said: cortex model logs m.") == "Read what the engine said, below Logs."
    assert in_console("Lower context_size.") == "Lower context_size."


# Logs


def test_lines_are_as_grave_as_their_engine_says() -> None:
    lines = [
        "0.32.197.213 I srv    operator(): chat format",
        "0.32.197.214 W srv  slow",
        "\tmore of it",
        "0.32.197.215 E srv  broken",
        "INFO 11-28 20:00:00 [core.py:1] fine",
        "(EngineCore pid=7) ERROR 11-28 20:00:00 [core.py:1] bad",
        "ValueError: no",
        "error: invalid argument: --x",
        "an error in the middle is a word",
        "DEBUG 1",
    ]
    assert [severity.value for _, severity in marked(lines)] == [
        "info", "warning", "warning", "error", "info", "error", "error", "error", "info", "debug",
    ]  # fmt: skip


def test_a_part_of_a_log_goes_on_where_the_last_one_ended() -> None:
    assert marked(["  at line 3"], Severity.ERROR) == [("  at line 3", Severity.ERROR)]


async def test_a_stream_is_read_however_it_is_cut() -> None:
    sent = (
        b'id: 1\nevent: log\ndata: {"lines": ["a", "\xc3\xa4"], "skipped": 0}\n\n: alive\n\n'
        b'event: log\ndata: {"lines": [], "skipped": 7}\n\nevent: end\ndata: {"reason": "the engine ended"}\n\n'
    )

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(sent), size):
            yield sent[start : start + size]

    expected = [LogPart(("a", "ä")), LogPart((), 7), LogPart(ended="the engine ended")]
    for size in (1, 7, 1000):
        assert [part async for part in read_log(chunks(size))] == expected


# Rates


def test_sums_become_rates_and_times_per_token() -> None:
    point = {
        "at": ago(minutes=1),
        "requests": 60,
        "completed": 50,
        "upstream_error": 6,
        "rejected": 0,
        "prompt_tokens": 600,
        "completion_tokens": 550,
        "avg_ttft_ms": 100.0,
        "avg_duration_ms": 200.0,
    }
    made = rates({"items": [{"points": [point]}]}, "minute")
    assert made.requests == [[point["at"], 1.0]]
    assert made.failed == [[point["at"], 0.1]]
    assert made.ttft == [[point["at"], 100.0]]
    assert made.per_token == [[point["at"], 10.0]]
    assert not made.is_empty
    assert rates({}, "hour").is_empty


@pytest.mark.parametrize(
    "sums",
    [
        {},
        {"avg_ttft_ms": 1.0, "avg_duration_ms": 2.0, "completed": 3, "completion_tokens": 3},
        {"avg_ttft_ms": None, "avg_duration_ms": 2.0, "completed": 3, "completion_tokens": 9},
    ],
)
def test_where_no_second_token_was_made_there_is_no_time_between_tokens(sums: Mapping[str, object]) -> None:
    assert per_token_ms(sums) is None


# Health


def upstream(**fields: object) -> Upstream:
    answer = {"id": "m-0", "model": "m", "model_id": "m", "url": "http://h:1", "node": "n", "verdict": "healthy"}
    return Upstream.of(answer | {"since": ago(hours=1)} | fields)


def test_upstreams_are_counted_by_verdict() -> None:
    found = counts([upstream(), upstream(verdict="unhealthy"), upstream(verdict=None)])
    assert found == {"healthy": 1, "unhealthy": 1, "loading": 0, "unprobed": 1}


def test_the_past_of_an_upstream_is_a_line_that_begins_with_what_is_known() -> None:
    history = [
        {"at": ago(hours=1), "healthy": True, "reason": "answers"},
        {"at": ago(hours=2), "healthy": False, "reason": "refused"},
        {"at": ago(hours=4), "healthy": True, "reason": "answers"},
    ]
    row: dict[str, Any] = upstream_row(upstream(history=history), NOW)
    assert [(part["tone"], part["share"]) for part in row["past"]] == [("good", 0.5), ("bad", 0.25), ("good", 0.25)]
    assert row["past_words"] == "became unhealthy 1 × in the last 24 hours"
    assert upstream_row(upstream(since=None), NOW)["past_words"] == "not probed yet"


@pytest.mark.parametrize(
    ("search", "verdict", "where", "shown"),
    [("", "", "", True), ("H:1", "healthy", "own", True), ("gone", "", "", False), ("", "", "external", False)],
)
def test_upstreams_are_filtered(search: str, verdict: str, where: str, shown: bool) -> None:
    assert upstream().matches(search, verdict, where) is shown


# Hosts


def test_a_host_shows_its_ledger_and_its_gpus() -> None:
    node = {
        "id": "n",
        "hostname": "gpu-1",
        "cpu_count": 8,
        "cpu_percent": 12.5,
        "memory_total": 4 * GIB,
        "memory_available": 3 * GIB,
        "promised_memory": {"cpu": GIB, "u0": GIB},
        "gpus": [{"uuid": "u0", "utilization": 40}],
    }
    gpu = {"node": "n", "index": 0, "name": "H200", "uuid": "u0", "memory_total": 8 * GIB, "memory_free": 2 * GIB}
    host = Host.of(node, [gpu | {"memory_promised": GIB, "models": ["m"]}, gpu | {"node": "other"}], {"m": "My model"})
    assert host.memory.words == "1.0 GiB of 4.0 GiB used, 1.0 GiB promised to models"
    (device,) = host.gpus
    assert (device.used_share, device.promised_share, device.utilization, device.models) == (
        0.75,
        0.125,
        40.0,
        ("My model",),
    )


def test_meters_warn_before_they_are_full() -> None:
    assert [load_tone(share) for share in (0.5, 0.85, 0.96)] == ["accent", "warn", "bad"]


def test_trends_become_lines_by_host_and_gpu() -> None:
    point = {
        "at": ago(minutes=1),
        "cpu_percent": None,
        "memory_available": GIB,
        "gpus": [{"index": 0, "memory_free": GIB, "memory_total": 4 * GIB, "utilization": 7}],
    }
    made = trends({"items": [{"hostname": "h", "memory_total": 4 * GIB, "points": [point]}]})
    assert made.cpu == {"h": [[point["at"], None]]}
    assert made.memory == {"h": [[point["at"], 75.0]]}
    assert made.gpu == {"h GPU 0": [[point["at"], 7.0]]}
    assert made.gpu_memory == {"h GPU 0": [[point["at"], 75.0]]}


def test_the_gravest_finding_comes_first() -> None:
    items = [{"verdict": "ok"}, {"verdict": "warning"}, {"verdict": "failed"}]
    assert [one["verdict"] for one in findings({"items": items})] == ["failed", "warning", "ok"]


# Attention


def model(name: str, state: str) -> ModelSummary:
    return ModelSummary.of({"id": name, "name": name, "served_model_name": name, "state": state, "reason": "why"})


def test_what_failed_comes_before_what_is_degraded() -> None:
    found = notices([model("b", "degraded"), model("a", "failed"), model("c", "running")], 1, 2)
    assert [(one.tone, one.words) for one in found] == [
        (Tone.BAD, "a failed: why"),
        (Tone.WARN, "b is degraded: why"),
    ]


def test_engines_that_do_not_answer_and_hosts_that_are_gone_are_told() -> None:
    assert [one.link for one in notices([model("c", "running")], 0, 1)] == ["/system", "/health"]
    many = notices([model(str(n), "failed") for n in range(8)], 1, 0)
    assert many[-1].words == "3 more models are in trouble."


def test_first_steps_end_with_the_first_answer() -> None:
    assert [step.done for step in first_steps([], asked=False)] == [False, False, False]
    assert [step.done for step in first_steps([model("a", "running")], asked=False)] == [True, True, False]
    assert first_steps([model("a", "running")], asked=True) == []


def test_a_value_between_gaps_is_drawn_as_a_dot() -> None:
    assert chart.dots([["t1", 1.0], ["t2", 2.0], ["t3", None]]) == {}
    drawn = chart.dots([["t1", None], ["t2", 2.0], ["t3", None], ["t4", 4.0]])["data"]
    assert [point["value"] if isinstance(point, dict) else None for point in drawn] == [
        None,
        ["t2", 2.0],
        None,
        ["t4", 4.0],
    ]
