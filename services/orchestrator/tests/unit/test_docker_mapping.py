"""Our words to Docker's and back, without a Docker engine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from docker.errors import APIError, ImageNotFound

from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.adapters.docker_mapping import DockerPlace, creation, observed, translate
from cortex_orchestrator.domain.observed import Exit, Phase
from cortex_orchestrator.domain.spec import ContainerSpec, Mount

PLACE = DockerPlace("engines", True, "testnode")


def test_a_container_gets_the_least_it_needs(make_spec: Callable[..., ContainerSpec]) -> None:
    spec = make_spec(mounts=(Mount("/srv/models", "/models"), Mount("cache", "/cache", read_only=False)))
    asked: dict[str, Any] = creation(spec, {"KEY": "secret"}, 2, PLACE)
    assert asked["cap_drop"] == ["ALL"]
    assert asked["security_opt"] == ["no-new-privileges:true"]
    assert (asked["read_only"], asked["init"]) == (True, True)
    assert asked["restart_policy"] == {"Name": "no"}
    assert asked["healthcheck"] == {"test": ["NONE"]}
    assert asked["ports"] == {"8000/tcp": ("127.0.0.1", None)}
    assert asked["command"] == ["serve", "0.0.0.0", "8000"]
    assert asked["environment"] == {"KEY": "secret"}
    assert asked["labels"]["cortex.restarts"] == "2"
    assert [(mount["Type"], mount["ReadOnly"]) for mount in asked["mounts"]] == [("bind", True), ("volume", False)]
    assert "secret" not in str(asked["command"]) + str(asked["labels"])
    assert not {"device_requests", "mem_limit", "ulimits", "shm_size", "privileged"} & asked.keys()


def test_what_a_model_asks_for_is_added(make_spec: Callable[..., ContainerSpec]) -> None:
    spec = make_spec(gpus=(0, 2), memory_bytes=1024)
    spec = replace(spec, command=replace(spec.command, shm_bytes=64, lock_memory=True, read_only_root=False))
    asked: dict[str, Any] = creation(spec, {}, 0, DockerPlace("engines", False, "n"))
    assert asked["device_requests"][0]["DeviceIDs"] == ["0", "2"]
    assert (asked["mem_limit"], asked["memswap_limit"], asked["shm_size"]) == (1024, 1024, 64)
    assert asked["ulimits"][0]["Name"] == "memlock"
    assert asked["read_only"] is False
    assert "ports" not in asked


def inspected(spec: ContainerSpec, **state: object) -> dict[str, Any]:
    return {
        "Id": "abc",
        "Name": f"/{spec.name}",
        "Config": {"Labels": spec.labels() | {"cortex.gpus": "1"}},
        "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00.123456789Z", **state},
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4711"}]}},
    }


def test_a_running_container_is_read_with_its_endpoint(make_spec: Callable[..., ContainerSpec]) -> None:
    spec = make_spec()
    seen = observed(inspected(spec), PLACE)
    assert seen is not None
    assert (seen.phase, seen.endpoint, seen.gpus) == (Phase.RUNNING, "http://127.0.0.1:4711", (1,))
    private = observed(inspected(spec), DockerPlace("engines", False, "n"))
    assert private is not None
    assert private.endpoint == f"http://{spec.name}:8000"


def test_an_ended_container_is_read_with_its_exit(make_spec: Callable[..., ContainerSpec]) -> None:
    state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True, "FinishedAt": "2026-01-01T00:00:10.5Z"}
    seen = observed(inspected(make_spec(), **state), PLACE)
    assert seen is not None
    assert (seen.phase, seen.exit, seen.endpoint) == (Phase.EXITED, Exit(137, True), None)
    assert 10 < seen.ran_for_s < 11


def test_foreign_labels_are_nobody_of_ours(make_spec: Callable[..., ContainerSpec]) -> None:
    attributes = inspected(make_spec())
    attributes["Config"]["Labels"] = None
    assert observed(attributes, PLACE) is None


def api_error(status: int, explanation: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    return APIError("failed", response=response, explanation=explanation)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (api_error(500, 'could not select device driver "" with capabilities: [[gpu]]'), "gpu_runtime_missing"),
        (api_error(500, "exec: no such file"), "engine_start_failed"),
        (api_error(400, "bad parameter"), "docker_refused"),
        (ImageNotFound("no such image"), "image_missing"),
    ],
)
def test_refusals_have_stable_codes(error: Exception, code: str) -> None:
    translated = translate(error, "starting x")
    assert isinstance(translated, DomainError)
    assert translated.code == code


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ReadTimeout("slow"),
        requests.exceptions.ConnectionError("away"),
        api_error(500, "driver failed: port is already allocated"),
    ],
)
def test_what_may_pass_by_itself_is_transient(error: Exception) -> None:
    assert isinstance(translate(error, "starting x"), TransientError)
