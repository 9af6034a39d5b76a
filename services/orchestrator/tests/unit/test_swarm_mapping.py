"""Our words to Swarm's and back, without a swarm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from cortex_orchestrator.adapters.docker_mapping import EngineLimits
from cortex_orchestrator.adapters.swarm_mapping import (
    LABEL_STOPPED,
    Node,
    SwarmPlace,
    newest,
    observed,
    refusal,
    service,
)
from cortex_orchestrator.domain.observed import Exit, Phase
from cortex_orchestrator.domain.spec import ContainerSpec, Mount, StopPolicy
from cortex_orchestrator.settings import Settings

MakeSpec = Callable[..., ContainerSpec]
PLACE = SwarmPlace("engines", "testnode")
NODE = Node("node1", "10.0.0.7")


def test_a_service_has_one_task_at_most_that_nobody_but_us_starts_again(make_spec: MakeSpec) -> None:
    asked = service(make_spec(), {"KEY": "secret"}, 2, PLACE, "node1")
    template = asked.task_template
    assert template["RestartPolicy"] == {"Condition": "none"}
    assert template["Placement"] == {"Constraints": ["node.id==node1"]}
    assert asked.endpoint_spec == {"Mode": "dnsrr"}
    assert asked.labels["cortex.restarts"] == "2"
    assert "secret" not in str(asked.labels) + str(template["ContainerSpec"]["Args"])


def test_a_service_is_hardened_like_a_container(make_spec: MakeSpec) -> None:
    spec = make_spec(mounts=(Mount("/srv/models", "/models"), Mount("cache", "/c", read_only=False)), memory_bytes=99)
    spec = replace(spec, command=replace(spec.command, shm_bytes=64, lock_memory=True), stop=StopPolicy(7.5))
    place = replace(PLACE, limits=EngineLimits(pids=5, cpus=1.5, tmpfs_bytes=10))
    template = service(spec, {}, 0, place, "n").task_template
    container = template["ContainerSpec"]
    assert (container["ReadOnly"], container["Init"], container["CapabilityDrop"]) == (True, True, ["ALL"])
    assert container["Privileges"] == {"NoNewPrivileges": True}
    assert container["StopGracePeriod"] == 7_500_000_000
    assert template["Resources"]["Limits"] == {"Pids": 5, "NanoCPUs": 1_500_000_000, "MemoryBytes": 99}
    assert [(mount["Type"], mount["Target"]) for mount in container["Mounts"]] == [
        ("bind", "/models"),
        ("volume", "/c"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/dev/shm"),
    ]
    assert container["Mounts"][0]["ReadOnly"] is True
    assert container["Ulimits"][0]["Name"] == "memlock"


def test_gpus_are_named_in_the_environment_and_reserved_only_when_asked(make_spec: MakeSpec) -> None:
    spec = make_spec(gpus=(1, 3))
    plain = service(spec, {}, 0, PLACE, "n").task_template
    assert "NVIDIA_VISIBLE_DEVICES=1,3" in plain["ContainerSpec"]["Env"]
    assert "Reservations" not in plain["Resources"]
    counted = service(spec, {}, 0, replace(PLACE, gpu_resource="NVIDIA-GPU"), "n").task_template
    (reserved,) = counted["Resources"]["Reservations"]["GenericResources"]
    assert reserved == {"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": 2}}
    none = service(make_spec(), {}, 0, PLACE, "n").task_template
    assert "NVIDIA_VISIBLE_DEVICES=void" in none["ContainerSpec"]["Env"]


def found(spec: ContainerSpec, **labels: str) -> dict[str, Any]:
    return {
        "ID": "svc",
        "CreatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Name": spec.name, "Labels": spec.labels() | labels},
    }


def task(state: str, code: int | None = None, error: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"State": state, "Timestamp": "2026-01-01T00:00:09Z", "Err": error}
    if code is not None:
        status["ContainerStatus"] = {"ContainerID": "c", "ExitCode": code}
    return {"ID": "task", "CreatedAt": "2026-01-01T00:00:01Z", "Status": status}


@pytest.mark.parametrize(
    ("state", "stopped", "phase"),
    [
        (None, False, Phase.CREATED),
        (None, True, Phase.EXITED),
        ("preparing", False, Phase.RUNNING),
        ("running", False, Phase.RUNNING),
        ("running", True, Phase.RUNNING),
        ("complete", False, Phase.EXITED),
        ("failed", False, Phase.EXITED),
        ("shutdown", True, Phase.EXITED),
        ("orphaned", False, Phase.EXITED),
    ],
)
def test_every_state_of_a_task_is_a_phase(make_spec: MakeSpec, state: str | None, stopped: bool, phase: Phase) -> None:
    labels = {LABEL_STOPPED: "1"} if stopped else {}
    seen = observed(found(make_spec(), **labels), None if state is None else task(state), None, PLACE, NODE)
    assert seen is not None
    assert seen.phase is phase


def test_the_end_is_read_from_the_task_and_better_from_its_container(make_spec: MakeSpec) -> None:
    spec = make_spec()
    far = observed(found(spec), task("failed", 137), None, PLACE, NODE)
    near = observed(found(spec), task("failed", 137), {"State": {"ExitCode": 137, "OOMKilled": True}}, PLACE, NODE)
    lost = observed(found(spec), task("orphaned"), None, PLACE, NODE)
    assert far is not None
    assert near is not None
    assert lost is not None
    assert (far.exit, near.exit, lost.exit) == (Exit(137), Exit(137, True), Exit(None))


def test_an_endpoint_is_a_name_or_the_nodes_published_port(make_spec: MakeSpec) -> None:
    spec = make_spec()
    running = task("running")
    running["Status"]["PortStatus"] = {"Ports": [{"PublishedPort": 32768, "TargetPort": 8000}]}
    private = observed(found(spec), running, None, PLACE, NODE)
    public = observed(found(spec), running, None, replace(PLACE, publish=True), NODE)
    assert private is not None
    assert public is not None
    assert (private.endpoint, public.endpoint) == (f"http://{spec.name}:8000", "http://10.0.0.7:32768")


@pytest.mark.parametrize(
    ("state", "error", "code"),
    [
        ("pending", "no suitable node (insufficient resources on 1 node)", "node_unsuitable"),
        ("rejected", "No such image: a/b:c", "image_missing"),
        ("rejected", "invalid mount config for type bind", "engine_start_failed"),
        ("running", "", None),
        ("failed", "task: non-zero exit (3)", None),
    ],
)
def test_what_swarm_refuses_has_a_stable_code(state: str, error: str, code: str | None) -> None:
    refused = refusal(task(state, error=error))
    assert (refused.code if refused is not None else None) == code


def test_the_newest_task_is_the_present_one() -> None:
    old, new = task("failed"), task("running") | {"CreatedAt": "2026-01-01T00:00:02Z"}
    assert newest([old, new]) is new
    assert newest([]) is None


@pytest.mark.parametrize(
    "wrong",
    [{"docker_internal": True}, {"runtime": "swarm", "docker_devices": ("/dev/dri",)}],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(nats_url="nats://x", secret_key="k" * 32, **wrong)  # type: ignore[arg-type]
