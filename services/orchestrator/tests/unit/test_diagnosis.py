"""Why an engine ended, read from logs of real engines (tests/data/logs/README.md)."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from cortex_orchestrator.domain.diagnosis import CODES, diagnose, diagnose_launch
from cortex_orchestrator.domain.observed import Exit

LOGS = Path(__file__).parents[1] / "data" / "logs"


@dataclass(frozen=True)
class Case:
    engine: str
    name: str
    exit_code: int
    code: str | None
    recorded: bool

    @property
    def lines(self) -> list[str]:
        return (LOGS / self.engine / f"{self.name}.log").read_text().splitlines()


CASES = [
    Case(folder.parent.name, name, entry["exit_code"], entry["diagnosis"], folder.stem == "recorded")
    for folder in sorted(LOGS.glob("*/*.json"))
    for name, entry in json.loads(folder.read_text()).items()
]
FAILING = [case for case in CASES if case.code is not None]
HEALTHY = [case for case in CASES if case.code is None]


@pytest.mark.parametrize("case", FAILING, ids=lambda case: f"{case.engine}-{case.name}")
def test_a_failure_is_told_from_its_log(case: Case) -> None:
    diagnosis = diagnose(Exit(case.exit_code), case.lines)
    assert diagnosis is not None
    assert diagnosis.code == case.code
    assert diagnosis.code in CODES
    assert diagnosis.message.endswith(".") or "It said: " in diagnosis.message
    assert "{" not in diagnosis.message.split("It said:")[0]
    assert diagnosis.fix
    assert "{" not in diagnosis.fix


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: f"{case.engine}-{case.name}")
def test_the_log_of_a_healthy_engine_says_nothing(case: Case) -> None:
    assert len(case.lines) > 30
    assert diagnose(Exit(None), case.lines) is None
    ended = diagnose(Exit(0), case.lines)
    assert ended is not None
    assert ended.code == "ended_by_itself"


def test_every_log_is_listed_and_both_engines_have_many_cases_from_real_runs() -> None:
    logs = {(path.parent.name, path.stem) for path in LOGS.glob("*/*.log")}
    assert logs == {(case.engine, case.name) for case in CASES}
    assert {case.engine for case in HEALTHY} == {"llamacpp", "vllm"}
    recorded = {case.code for case in FAILING if case.recorded}
    assert len(recorded) >= 45
    for engine in ("llamacpp", "vllm"):
        assert len({case.code for case in FAILING if case.recorded and case.engine == engine}) >= 20


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Exit(137, oom_killed=True), "oom_killed"),
        (Exit(137), "killed"),
        (Exit(-9), "killed"),
        (Exit(132), "illegal_instruction"),
        (Exit(-11), "segmentation_fault"),
        (Exit(139), "segmentation_fault"),
        (Exit(134), "aborted"),
        (Exit(135), "bus_error"),
        (Exit(143), "terminated"),
        (Exit(126), "not_executable"),
        (Exit(127), "program_missing"),
        (Exit(0), "ended_by_itself"),
    ],
)
def test_without_a_telling_line_the_way_it_ended_decides(end: Exit, code: str) -> None:
    diagnosis = diagnose(end, ["main: model loaded"])
    assert diagnosis is not None
    assert diagnosis.code == code


@pytest.mark.parametrize("end", [Exit(None), Exit(1), Exit(3)])
def test_what_is_not_recognised_stays_undiagnosed(end: Exit) -> None:
    assert diagnose(end, ["something new went wrong"]) is None


def test_memory_that_ran_out_counts_more_than_any_line() -> None:
    diagnosis = diagnose(Exit(137, oom_killed=True), ["error: invalid argument: --x"])
    assert diagnosis is not None
    assert diagnosis.code == "oom_killed"


def test_words_of_users_and_warnings_are_no_failures() -> None:
    lines = [
        '(APIServer pid=7) INFO 11-22 19:35:12 [logger.py:40] Received request x: prompt: "CUDA out of memory"',
        "(APIServer pid=7) WARNING 11-22 19:35:37 [system_utils.py:255] `OSError: [Errno 24] Too many open files`",
        "0.01.000.000 W srv  llama_server: address already in use",
        'INFO:     127.0.0.1:1 - "GET /v1/models?q=No+space+left+on+device HTTP/1.1" 200 OK',
    ]
    assert diagnose(Exit(1), lines) is None


def test_no_token_is_quoted() -> None:
    diagnosis = diagnose(Exit(1), ["OSError: 401 Client Error for hf_abcdefghijklmnop and Bearer hunter2"])
    assert diagnosis is not None
    assert diagnosis.code == "token_refused"
    assert "hf_abc" not in diagnosis.message
    assert "hunter2" not in diagnosis.message


def test_a_long_line_is_cut() -> None:
    diagnosis = diagnose(Exit(1), ["error: invalid argument: --" + "x" * 10_000])
    assert diagnosis is not None
    assert len(diagnosis.message) < 1000


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("image_missing", "x/y:1 is not there", "image_missing"),
        ("image_pull_failed", "x/y:1 cannot be pulled: pull access denied for x/y", "image_pull_denied"),
        ("image_pull_failed", "x/y:1 cannot be pulled: manifest unknown", "image_missing"),
        ("image_pull_failed", "write /var/lib/x: no space left on device", "disk_full"),
        ("engine_start_failed", 'could not select device driver "" with capabilities: [[gpu]]', "gpu_runtime_missing"),
        ("engine_start_failed", "Bind for 127.0.0.1:9 failed: port is already allocated", "port_in_use"),
        ("gpu_runtime_missing", "this Docker engine has no NVIDIA runtime", "gpu_runtime_missing"),
        ("engine_missing", "There is no vllm on this machine.", "engine_missing"),
        ("models_dir_missing", "This node has no models folder", "models_dir_missing"),
    ],
)
def test_what_fails_before_the_engine_runs_gets_a_remedy(code: str, message: str, expected: str) -> None:
    diagnosis = diagnose_launch(code, message)
    assert (diagnosis.code, diagnosis.message) == (expected, message)
    assert diagnosis.fix


def test_an_error_without_a_remedy_keeps_its_words() -> None:
    assert diagnose_launch("brand_new", "Something happened.").code == "brand_new"
