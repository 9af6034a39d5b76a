"""What passes to the Docker engine and what does not."""

import copy
from typing import Any

import pytest

from cortex_socket_proxy.policy import Passage, Policy, Refusal, image_allowed, judge, judge_creation, judge_network

POLICY = Policy(
    images=("ghcr.io/ggml-org/llama.cpp:*", "cortex/*"),
    binds=("/srv/models",),
    volumes=("cortex-hub-cache",),
    network="cortex-engines",
    devices=("/dev/dri",),
)
ENGINE: dict[str, Any] = {
    "Image": "ghcr.io/ggml-org/llama.cpp:server-cuda-b11434",
    "Cmd": ["--model", "/models/a.gguf"],
    "Env": ["LLAMA_API_KEY=x"],
    "Labels": {"cortex.managed": "1"},
    "ExposedPorts": {"8000/tcp": {}},
    "Healthcheck": {"Test": ["NONE"]},
    "Hostname": None,
    "HostConfig": {
        "NetworkMode": "cortex-engines",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "RestartPolicy": {"Name": "no"},
        "Init": True,
        "PidsLimit": 4096,
        "ReadonlyRootfs": True,
        "Memory": 1024,
        "MemorySwap": 1024,
        "Privileged": False,
        "Tmpfs": {"/tmp": "rw"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m"}},
        "Mounts": [
            {"Type": "bind", "Source": "/srv/models", "Target": "/models", "ReadOnly": True},
            {"Type": "volume", "Source": "cortex-hub-cache", "Target": "/cache", "ReadOnly": False},
        ],
        "DeviceRequests": [{"Driver": "", "Count": 0, "DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {}}],
        "Devices": [{"PathOnHost": "/dev/dri", "PathInContainer": "/dev/dri", "CgroupPermissions": "rwm"}],
        "GroupAdd": ["44"],
        "Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}],
        "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
    },
    "NetworkingConfig": {"EndpointsConfig": {"cortex-engines": None}},
}


def test_an_engine_as_the_orchestrator_asks_for_it_passes() -> None:
    assert judge_creation(ENGINE, POLICY) is None


HOSTILE: list[tuple[str, Any]] = [
    ("Image", "alpine:latest"),
    ("Image", "ghcr.io/ggml-org/llama.cpp.evil:x"),
    ("Image", None),
    ("Labels", {}),
    ("Labels", None),
    ("Labels", {"x": "y"}),
    ("HostConfig", []),
    ("HostConfig", None),
    ("hostconfig", {"Privileged": True}),
    ("MacAddress", "02:42:ac:11:00:02"),
    ("NetworkingConfig", {"EndpointsConfig": {"cortex-control": {}}}),
    ("NetworkingConfig", {"Endpointsconfig": {"host": {}}}),
    ("HostConfig.Privileged", True),
    ("HostConfig.privileged", True),
    ("HostConfig.securityopt", []),
    ("HostConfig.CAPDROP", None),
    ("HostConfig.\u017fecurityOpt", []),
    ("\u017fome", None),
    ("HostConfig.CapAdd", ["SYS_ADMIN"]),
    ("HostConfig.CapDrop", []),
    ("HostConfig.CapDrop", ["NET_RAW"]),
    ("HostConfig.SecurityOpt", []),
    ("HostConfig.SecurityOpt", None),
    ("HostConfig.SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"]),
    ("HostConfig.SecurityOpt", ["apparmor=unconfined"]),
    ("HostConfig.NetworkMode", "host"),
    ("HostConfig.NetworkMode", "container:registry"),
    ("HostConfig.NetworkMode", "cortex-control"),
    ("HostConfig.NetworkMode", None),
    ("HostConfig.PidMode", "host"),
    ("HostConfig.IpcMode", "host"),
    ("HostConfig.IpcMode", "container:x"),
    ("HostConfig.UTSMode", "host"),
    ("HostConfig.UsernsMode", "host"),
    ("HostConfig.CgroupnsMode", "host"),
    ("HostConfig.CgroupParent", "/"),
    ("HostConfig.Runtime", "evil"),
    ("HostConfig.Binds", ["/:/host"]),
    ("HostConfig.VolumesFrom", ["registry"]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": True}]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/srv/models/..", "Target": "/m", "ReadOnly": True}]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/srv/models/link", "Target": "/m", "ReadOnly": True}]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/srv/models", "Target": "/m", "ReadOnly": False}]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/srv/models", "Target": "/m"}]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s", "ReadOnly": True}]),
    ("HostConfig.Mounts", [{"Type": "volume", "Source": "cortex-postgres", "Target": "/p"}]),
    (
        "HostConfig.Mounts",
        [{"Type": "volume", "Source": "cortex-hub-cache", "VolumeOptions": {"DriverConfig": {"a": 1}}}],
    ),
    ("HostConfig.Mounts", [{"Type": "npipe", "Source": "x"}]),
    ("HostConfig.Mounts", [{"type": "bind", "source": "/", "Target": "/host"}]),
    ("HostConfig.Devices", [{"PathOnHost": "/dev/sda"}]),
    ("HostConfig.DeviceCgroupRules", ["a *:* rwm"]),
    ("HostConfig.DeviceRequests", [{"Driver": "evil", "Capabilities": [["gpu"]]}]),
    ("HostConfig.DeviceRequests", [{"Capabilities": [["gpu", "admin"]]}]),
    ("HostConfig.GroupAdd", ["docker"]),
    ("HostConfig.GroupAdd", ["0"]),
    ("HostConfig.Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 1}]),
    ("HostConfig.Sysctls", {"kernel.shm_rmid_forced": "1"}),
    ("HostConfig.OomScoreAdj", -1000),
    ("HostConfig.ExtraHosts", ["registry:1.2.3.4"]),
    ("HostConfig.RestartPolicy", {"Name": "always"}),
    ("HostConfig.PortBindings", {"8000/tcp": [{"HostIp": "", "HostPort": "80"}]}),
    ("HostConfig.PortBindings", {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}),
    ("HostConfig.PublishAllPorts", True),
    ("HostConfig.MaskedPaths", ["x"]),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_what_an_engine_does_not_need_is_refused(field: str, value: Any) -> None:
    body = copy.deepcopy(ENGINE)
    *parents, last = field.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    target[last] = value
    assert isinstance(judge_creation(body, POLICY), Refusal)


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, {"Image": "cortex/a:1"}])
def test_a_body_that_is_no_description_is_refused(body: Any) -> None:
    assert isinstance(judge_creation(body, POLICY), Refusal)


def test_an_image_named_by_id_is_judged_by_its_names() -> None:
    body = ENGINE | {"Image": "sha256:" + "a" * 64}
    assert isinstance(judge_creation(body, POLICY), Refusal)
    assert isinstance(judge_creation(body, POLICY, ["alpine:latest"]), Refusal)
    assert judge_creation(body, POLICY, ["cortex/llamacpp-server:1"]) is None


@pytest.mark.parametrize(
    ("method", "path", "passage"),
    [
        ("GET", "/_ping", Passage()),
        ("GET", "/v1.41/containers/json", Passage()),
        ("GET", "/v1.41/images/ghcr.io/ggml-org/llama.cpp:server/json", Passage()),
        ("GET", "/v1.41/containers/abc/logs", Passage(container="abc")),
        ("POST", "/v1.41/containers/llamacpp-model-1-0/start", Passage(container="llamacpp-model-1-0")),
        ("DELETE", "/containers/abc", Passage(container="abc")),
        ("POST", "/v1.41/containers/create", Passage(create=True)),
        ("POST", "/networks/create", Passage(network=True)),
    ],
)
def test_what_running_engines_takes_passes(method: str, path: str, passage: Passage) -> None:
    assert judge(method, path, {}, POLICY) == passage


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/abc/exec"),
        ("POST", "/v1.41/exec/abc/start"),
        ("POST", "/containers/abc/attach"),
        ("GET", "/containers/abc/archive"),
        ("PUT", "/containers/abc/archive"),
        ("GET", "/containers/abc/export"),
        ("POST", "/containers/abc/update"),
        ("POST", "/containers/abc/rename"),
        ("POST", "/containers/prune"),
        ("POST", "/build"),
        ("POST", "/commit"),
        ("POST", "/images/load"),
        ("DELETE", "/images/cortex/x"),
        ("POST", "/images/x/push"),
        ("POST", "/swarm/init"),
        ("POST", "/services/create"),
        ("GET", "/secrets"),
        ("POST", "/volumes/create"),
        ("POST", "/plugins/pull"),
        ("POST", "/session"),
        ("POST", "/networks/x/connect"),
        ("DELETE", "/networks/x"),
        ("GET", "/containers/../info"),
        ("POST", "/containers/a%2Fb/start"),
        ("GET", "//containers/json"),
        ("GET", "/v1.41/v1.41/info"),
        ("POST", "/containers/json"),
        ("get", "/info"),
    ],
)
def test_everything_else_is_refused(method: str, path: str) -> None:
    assert isinstance(judge(method, path, {}, POLICY), Refusal)


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ({"fromImage": "ghcr.io/ggml-org/llama.cpp", "tag": "server"}, True),
        ({"fromImage": "ghcr.io/ggml-org/llama.cpp", "tag": "sha256:" + "a" * 64}, False),
        ({"fromImage": "alpine", "tag": "latest"}, False),
        ({"fromImage": "cortex/x"}, True),
        ({"fromSrc": "-", "repo": "cortex/x"}, False),
        ({"fromImage": "cortex/x", "changes": "USER root"}, False),
        ({}, False),
    ],
)
def test_only_images_on_the_list_are_pulled(query: dict[str, str], allowed: bool) -> None:
    assert isinstance(judge("POST", "/v1.41/images/create", query, POLICY), Passage) is allowed


def test_a_port_in_a_registry_name_is_no_tag() -> None:
    policy = Policy(("hub.local:5000/cortex/x:*",), (), (), "n")
    assert image_allowed("hub.local:5000/cortex/x", policy)
    assert not image_allowed("hub.local:5000/other", policy)


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (
            {"Name": "cortex-engines", "Driver": "bridge", "Labels": {"cortex.managed": "1"}, "CheckDuplicate": True},
            True,
        ),
        ({"Name": "cortex-engines", "Internal": True}, True),
        ({"Name": "other"}, False),
        ({"Name": "cortex-engines", "Driver": "macvlan"}, False),
        ({"Name": "cortex-engines", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}}, False),
        ({"Name": "cortex-engines", "Options": {"com.docker.network.bridge.name": "docker0"}}, False),
        ([], False),
    ],
)
def test_only_the_engines_network_is_made(body: Any, allowed: bool) -> None:
    assert (judge_network(body, POLICY) is None) is allowed
