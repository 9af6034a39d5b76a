from datetime import UTC, datetime

import pytest

from cortex_cli.commands.events import clock, describe
from cortex_cli.errors import CliError
from cortex_cli.output import age, cell, duration
from cortex_cli.stack.process import Phase, ProcessStatus
from cortex_cli.stack.ready import Ready
from cortex_cli.stack.snapshot import Snapshot, changes, total
from cortex_cli.stack.supervisor import unwrap
from cortex_cli.stack.view import summary
from cortex_cli.waiting import FAILURE_PATIENCE_S, judge

METRICS = """# HELP gateway_requests_total Requests
gateway_requests_total{route="/v1/models",status="200"} 3.0
gateway_requests_total{route="/v1/models",status="401"} 1.0
gateway_requests_total_created 9.0
gateway_in_flight_requests 2.0
"""


@pytest.mark.parametrize(
    ("name", "value"), [("gateway_requests_total", 4.0), ("gateway_in_flight_requests", 2.0), ("nothing", 0.0)]
)
def test_a_metric_is_summed_over_its_labels(name: str, value: float) -> None:
    assert total(METRICS, name) == value


def _snapshot(phase: Phase, restarts: int, state: str) -> Snapshot:
    process = ProcessStatus("nats", phase, 1, restarts, "was killed by signal 9")
    return Snapshot([process], [{"id": "1", "name": "m", "state": state, "reason": "why"}], 0, 0)


@pytest.mark.parametrize(
    ("phase", "restarts", "state", "lines"),
    [
        pytest.param(Phase.READY, 0, "running", [], id="nothing new"),
        pytest.param(Phase.READY, 1, "running", ["nats: ready"], id="a restart too quick to be seen"),
        pytest.param(Phase.RESTARTING, 1, "running", [], id="a restart is told as it happens"),
        pytest.param(Phase.NOT_READY, 0, "running", ["nats: not ready"], id="not ready any more"),
        pytest.param(Phase.READY, 0, "failed", ["model m: failed (why)"], id="a model"),
    ],
)
def test_only_changes_are_told(phase: Phase, restarts: int, state: str, lines: list[str]) -> None:
    assert changes(_snapshot(Phase.READY, 0, "running"), _snapshot(phase, restarts, state)) == lines


def test_an_absent_registry_is_no_change_of_models() -> None:
    before = _snapshot(Phase.READY, 0, "running")
    assert changes(before, Snapshot(before.processes, None, None, None)) == []


READY = Ready("http://g", "http://r", "http://c", "nats://u:pw@h", "admin", "sk-1", "demo", "nats://o:pw@h", "/m", 1)


def test_the_summary_can_be_pasted() -> None:
    text = summary(READY)
    assert "curl http://g/v1/chat/completions" in text
    assert "Bearer sk-1" in text
    snippet = text[text.index("from openai") :]
    compile(snippet, "snippet", "exec")
    assert 'base_url="http://g/v1", api_key="sk-1"' in snippet
    assert "admin'" not in text
    assert "pw" not in text


@pytest.mark.parametrize(
    ("state", "failed_for_s", "left_s", "code"),
    [
        ("loading", 0.0, 1.0, None),
        (None, 0.0, 1.0, None),
        ("failed", FAILURE_PATIENCE_S - 1, 1.0, None),
        ("failed", FAILURE_PATIENCE_S, 1.0, "model_failed"),
        ("loading", 0.0, 0.0, "model_not_ready"),
    ],
)
def test_when_waiting_for_a_model_ends(state: str | None, failed_for_s: float, left_s: float, code: str | None) -> None:
    model = {"name": "m", "state": state, "reason": "because", "desired_state": "running"}
    if code is None:
        assert judge(model, failed_for_s=failed_for_s, left_s=left_s) is None
        return
    with pytest.raises(CliError, match="because") as caught:
        judge(model, failed_for_s=failed_for_s, left_s=left_s)
    assert caught.value.code == code


def test_a_running_model_is_done_and_a_stopped_one_never_will_be() -> None:
    assert judge({"name": "m", "state": "running"}, failed_for_s=0, left_s=-1) == {"name": "m", "state": "running"}
    with pytest.raises(CliError, match="asked to stop"):
        judge({"name": "m", "state": "stopping", "desired_state": "stopped"}, failed_for_s=0, left_s=9)


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (200000, "2d")])
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ages_come_from_timestamps() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert age("2026-01-01T11:59:00Z", now) == "1m"
    assert age(None, now) == "-"
    assert age("soon", now) == "soon"


def test_cells_are_never_markup() -> None:
    assert cell("[red]x[/]").plain == "[red]x[/]"
    assert cell("running").style == "green"
    assert cell(None).plain == "-"


def test_an_event_is_one_line() -> None:
    assert describe({"a": 1, "b": None, "c": [], "d": "x\ny", "e": "z" * 200}) == f"a=1 d=x y e={'z' * 97}..."
    assert clock("nonsense") == "--:--:--.---"


def test_of_several_failures_ours_is_shown() -> None:
    ours = CliError("ours")
    assert unwrap(BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [ours])])) is ours
    lone = ValueError()
    assert unwrap(BaseExceptionGroup("", [lone])) is lone
    several = BaseExceptionGroup("", [ValueError(), KeyError()])
    assert unwrap(several) is several
