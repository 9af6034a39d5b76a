"""Our words to Docker's and back, without a Docker engine."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from docker.errors import APIError, ImageNotFound

from cortex_contracts.documents import PullProgress
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.adapters.docker_catalog import digest_of
from cortex_orchestrator.adapters.docker_mapping import (
    DockerPlace,
    creation,
    observed,
    pull_refused,
    repository_of,
    translate,
)
from cortex_orchestrator.adapters.image_pulls import PullError, follow_progress
from cortex_orchestrator.adapters.log_lines import LINE_CHARACTERS, LineSplitter
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
        api_error(500, "Could not attach to network n: rpc error: code = NotFound desc = network n not found"),
    ],
)
def test_what_may_pass_by_itself_is_transient(error: Exception) -> None:
    assert isinstance(translate(error, "starting x"), TransientError)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("failed to register layer: write /x: no space left on device", "disk_full"),
        ("manifest for a/b:c not found: manifest unknown: manifest unknown", "image_not_found"),
        ("pull access denied for a/b, repository does not exist or may require 'docker login'", "image_not_found"),
        ("unauthorized: authentication required", "registry_denied"),
        ("toomanyrequests: You have reached your pull rate limit", "registry_limit"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "image_wrong_platform"),
        (
            "Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host",
            "registry_unreachable",
        ),
        ("Get https://r/v2/: net/http: TLS handshake timeout", "registry_unreachable"),
        ("Get https://r/v2/: x509: certificate signed by unknown authority", "registry_unreachable"),
        ("Get https://r/v2/: context deadline exceeded", "registry_unreachable"),
        ("something new", "image_pull_failed"),
    ],
)
def test_why_a_pull_failed_has_a_stable_code_and_names_the_image(text: str, code: str) -> None:
    error = pull_refused("a/b:c", text)
    assert error.code == code
    assert error.message.startswith("a/b:c cannot be pulled.")
    assert text in error.message


def test_a_full_disk_at_creation_is_told_as_such() -> None:
    translated = translate(api_error(500, "mkdir /var/lib/docker/overlay2/x: no space left on device"), "creating x")
    assert isinstance(translated, DomainError)
    assert translated.code == "disk_full"


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("a/b:c", "a/b"),
        ("a/b", "a/b"),
        ("host:5000/a/b", "host:5000/a/b"),
        ("host:5000/a/b:c", "host:5000/a/b"),
        ("host:5000/a/b:c@sha256:00", "host:5000/a/b"),
        ("a/b@sha256:00", "a/b"),
    ],
)
def test_a_reference_is_parted_from_tag_and_digest(reference: str, repository: str) -> None:
    assert repository_of(reference) == repository


def test_the_digest_is_the_one_of_the_references_own_repository() -> None:
    digests = ["other/b@sha256:1", "host:5000/a/b@sha256:2"]
    assert digest_of("host:5000/a/b:c", digests) == "sha256:2"
    assert digest_of("a/b:c", digests) is None


async def test_progress_is_told_at_most_once_a_second_and_at_the_end() -> None:
    told: list[PullProgress] = []

    async def stream() -> AsyncIterator[dict[str, Any]]:
        for current in range(0, 1001, 10):
            for layer in ("a", "b"):
                detail = {"current": current, "total": 1000}
                yield {"id": layer, "status": "Downloading", "progressDetail": detail}
        yield {"id": "a", "status": "Extracting", "progressDetail": {"current": 1, "total": 9}}

    await follow_progress(stream(), told.append)
    assert told[0] == PullProgress()
    assert told[-1] == PullProgress(current_bytes=2000, total_bytes=2000)
    assert len(told) <= 4


async def test_an_error_in_the_middle_of_a_pull_is_no_success() -> None:
    async def stream() -> AsyncIterator[dict[str, Any]]:
        yield {"status": "Pulling"}
        yield {"error": "write: no space left on device", "errorDetail": {}}

    with pytest.raises(PullError, match="no space"):
        await follow_progress(stream(), lambda _: None)


def test_lines_are_cut_where_they_end_without_colours_and_never_grow_without_bound() -> None:
    splitter = LineSplitter()
    assert splitter.feed("one\ntw") == ("one",)
    assert splitter.feed("o\r\n\x1b[31mred\x1b[0m\n") == ("two", "red")
    assert [len(line) for line in splitter.feed("x" * (2 * LINE_CHARACTERS + 1))] == [LINE_CHARACTERS] * 2
    assert splitter.flush() == ("x",)
    assert splitter.flush() == ()
