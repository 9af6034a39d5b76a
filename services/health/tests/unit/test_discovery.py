"""What Prometheus is told to scrape."""

from cortex_contracts.enums import EngineType, ReplicaState
from cortex_health.entrypoints.discovery import member_groups, vllm_groups
from cortex_health.settings import Settings


def test_every_member_is_a_target_with_its_own_address():
    groups = member_groups({"b": "health-2:8083", "a": "health-1:8083"})
    assert [group["targets"] for group in groups] == [["health-1:8083"], ["health-2:8083"]]
    assert groups[0]["labels"] == {"job": "cortex-health", "cortex_member": "a", "__metrics_path__": "/metrics"}


def test_only_running_vllm_engines_are_offered_and_no_password_of_an_address(make_replica):
    def replica(number: int, **changes):
        return make_replica(id=f"replica-{number}", **changes)

    vllm = {"engine_type": EngineType.VLLM}
    groups = vllm_groups(
        [
            replica(0, **vllm, endpoint="http://10.0.0.1:8000"),
            replica(1, **vllm, endpoint="https://user:secret@engine.example/base/"),
            replica(2, **vllm, state=ReplicaState.FAILED),
            replica(3, **vllm, endpoint=None),
            replica(4),
        ],
        lambda replica: "gpt" if replica.id == "replica-0" else None,
    )
    assert [group["targets"] for group in groups] == [["10.0.0.1:8000"], ["engine.example"]]
    first, second = (group["labels"] for group in groups)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["model"], first["__metrics_path__"]) == ("gpt", "/metrics")
    assert (second["__scheme__"], second["__metrics_path__"]) == ("https", "/base/metrics")
    assert second["model"] == make_replica().model_id


def test_the_address_is_what_others_can_reach(secret_key: str):
    def address(**fields) -> str:
        return Settings(nats_url="nats://x", secret_key=secret_key, **fields).address()

    assert address() == "127.0.0.1:8083"
    assert address(advertise="health:1") == "health:1"
    host, _, port = address(host="0.0.0.0").partition(":")
    assert host not in ("", "0.0.0.0")
    assert port == "8083"
