"""Verdicts of the doctor about a node."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from cortex_contracts.base import NodeId
from cortex_contracts.doctor import CheckVerdict, worst
from cortex_contracts.documents import GpuInfo
from cortex_kit.clock import SystemClock
from cortex_kit.errors import TransientError
from cortex_orchestrator.domain.doctor import (
    GIB,
    Disk,
    DockerFacts,
    judge_disk,
    judge_docker,
    judge_memory,
    judge_models,
    judge_program,
)
from cortex_orchestrator.handlers.doctor import Doctor, Ground, Measures

OK, WARNING, FAILED = CheckVerdict.OK, CheckVerdict.WARNING, CheckVerdict.FAILED


@pytest.mark.parametrize(
    ("version", "runtimes", "gpus", "images", "offline", "verdicts"),
    [
        ("28.1.1", ("runc", "nvidia"), 2, {"a": True}, False, (OK, OK, OK)),
        ("20.10.24+dfsg1", ("runc",), 0, {"a": False}, False, (OK, OK, WARNING)),
        ("19.03.1", ("runc",), 1, {"a": False}, True, (FAILED, FAILED, FAILED)),
        ("nightly", (), 0, {}, False, (OK, OK)),
    ],
)
def test_a_docker_engine_is_judged(
    version: str,
    runtimes: tuple[str, ...],
    gpus: int,
    images: Mapping[str, bool],
    offline: bool,
    verdicts: tuple[CheckVerdict, ...],
) -> None:
    checks = judge_docker(DockerFacts(version, runtimes, images), gpus=gpus, offline=offline)
    assert tuple(check.verdict for check in checks) == verdicts
    assert all((check.fix is None) is (check.verdict is OK) for check in checks)


@pytest.mark.parametrize(("free", "verdict"), [(GIB, FAILED), (10 * GIB, WARNING), (100 * GIB, OK)])
def test_a_disk_is_judged_by_what_is_free(free: int, verdict: CheckVerdict) -> None:
    assert judge_disk(Disk("disk of models", "/srv/models", free, 900 * GIB)).verdict is verdict


def test_memory_programs_and_models_have_verdicts_with_a_fix() -> None:
    checks = (judge_memory(GIB, 8 * GIB), judge_program("vllm", None), judge_models("/m", 0), judge_models(None, None))
    assert {check.verdict for check in checks} == {WARNING}
    assert all(check.fix for check in checks)
    assert judge_models("/m", None).verdict is FAILED
    assert judge_models("/m", 3).verdict is judge_memory(4 * GIB, 8 * GIB).verdict is OK
    assert judge_program("llamacpp", "/usr/bin/llama-server").verdict is OK


class NoGpus:
    def gpus(self) -> tuple[GpuInfo, ...]:
        return ()


class DockerThatIsAway:
    async def examine(self) -> DockerFacts:
        raise TransientError("connection refused")


class DockerThatHangs:
    async def examine(self) -> DockerFacts:
        await asyncio.sleep(3600)
        raise AssertionError


async def nothing() -> Mapping[str, str | None]:
    return {}


@pytest.mark.parametrize("docker", [DockerThatIsAway(), DockerThatHangs()])
async def test_a_runtime_that_does_not_answer_is_a_failed_check_and_the_rest_is_told(
    docker: DockerThatIsAway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_orchestrator.handlers.doctor.DEADLINE_S", 0.05)
    ground = Ground(NodeId("n"), Path("/m"), [("disk of models", Path("/m"))], docker, nothing, offline=False)
    measures = Measures(
        lambda folders: (Disk("disk of models", str(folders[0][1]), 100 * GIB, 900 * GIB),),
        lambda: (8 * GIB, 16 * GIB),
        lambda _: 2,
    )
    result = await Doctor(ground, measures, NoGpus(), SystemClock()).examine()
    assert [check.name for check in result.checks] == ["docker", "gpus", "memory", "disk of models", "models folder"]
    assert result.checks[0].fix
    assert worst(result.checks) is FAILED
    assert worst(result.checks[1:]) is OK
