from datetime import UTC, datetime, timedelta

import pytest

from cortex_contracts.engines import VllmOptions
from cortex_contracts.external import external_replicas
from cortex_gateway.domain.routing import Keys, build_table, parse_endpoint

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OPENED = {"sealed-1": "key-1"}


def table_of(models, replicas=(), verdicts=()):
    return build_table(
        {document.id: document for document in models},
        {document.id: document for document in replicas},
        {document.replica_id: document for document in verdicts},
        Keys(lambda replica_id, spec_hash: f"key-{replica_id}-{spec_hash}", OPENED.get),
    )


def test_a_started_replica_with_a_healthy_verdict_of_its_spec_is_a_target(model, replica, verdict):
    route = table_of([model()], [replica()], [verdict()]).find("served-m1")
    assert route is not None
    [target] = route.targets
    assert (target.endpoint.host, target.endpoint.port) == ("127.0.0.1", 4000)
    assert target.endpoint.head == b"host: 127.0.0.1:4000\r\nauthorization: Bearer key-m1-0-h1\r\n"


@pytest.mark.parametrize(
    ("replica_fields", "verdict_fields", "desired", "state"),
    [
        ({}, None, "running", "loading"),
        ({}, {"verdict": "loading"}, "running", "loading"),
        ({}, {"verdict": "unhealthy", "reason": "refused"}, "running", "unhealthy"),
        ({}, {"spec_hash": "h0"}, "running", "loading"),
        ({"state": "starting"}, {}, "running", "starting"),
        ({"state": "pulling"}, {}, "running", "pulling"),
        ({"state": "failed", "reason": "exit 1"}, {}, "running", "failed"),
        ({"state": "draining"}, {}, "running", "stopping"),
        ({"state": "draining"}, {}, "stopped", "stopped"),
        ({"endpoint": None}, {}, "running", "unreachable"),
    ],
)
def test_anything_else_is_no_target_and_has_a_reason(
    model, replica, verdict, replica_fields, verdict_fields, desired, state
):
    verdicts = [] if verdict_fields is None else [verdict(**verdict_fields)]
    route = table_of([model(desired_state=desired)], [replica(**replica_fields)], verdicts).find("served-m1")
    assert route is not None
    assert route.targets == ()
    assert route.unavailability.state == state
    assert route.unavailability.wait is (desired == "running")


def test_a_model_without_replicas_is_starting(model):
    route = table_of([model()]).find("served-m1")
    assert route is not None
    assert route.unavailability.state == "starting"


def test_an_adapter_is_found_by_its_name_which_every_other_name_hides(model):
    options = VllmOptions.model_validate({"lora_modules": [{"name": "sql", "path": "sql"}, {"name": "b", "path": "b"}]})
    table = table_of([model("m1", engine_type="vllm", vllm=options), model("m2", aliases=("b",))])
    route = table.find("sql")
    assert route is table.find("served-m1")
    assert route is not None
    assert route.adapters == {"sql", "b"}
    assert "sql" in route.names
    assert table.find("b") is table.find("served-m2")


def test_names_and_aliases_find_the_model_and_names_win(model):
    table = table_of([model("m1", aliases=("a", "served-m2")), model("m2", aliases=("a", "b"))])
    found = {name: route.model.id for name, route in table.by_name.items()}
    assert found == {"served-m1": "m1", "served-m2": "m2", "a": "m1", "b": "m2"}
    assert table.find("c") is None


def test_defaults_are_encoded_once_and_never_override_the_essentials(model):
    route = table_of([model(request_defaults={"temperature": 0.5, "model": "x", "stream": True})]).find("served-m1")
    assert route is not None
    assert {name: bytes(value) for name, value in route.defaults.items()} == {"temperature": b"0.5"}


def test_an_incarnation_changes_with_health_place_and_spec(model, replica, verdict):
    def incarnation(replica_fields, verdict_fields):
        route = table_of([model()], [replica(**replica_fields)], [verdict(**verdict_fields)]).find("served-m1")
        assert route is not None
        return route.targets[0].incarnation

    variants = {
        incarnation({}, {}),
        incarnation({"endpoint": "http://127.0.0.1:1"}, {}),
        incarnation({"restarts": 1}, {}),
        incarnation({}, {"since": "2027-01-01T00:00:00Z"}),
        incarnation({"spec_hash": "h2"}, {"spec_hash": "h2"}),
    }
    assert len(variants) == 5


@pytest.mark.parametrize("lifecycle", ["always", "on_demand"])
def test_a_model_that_an_administrator_stopped_is_not_waited_for(model, lifecycle):
    route = table_of([model(desired_state="stopped", lifecycle=lifecycle)]).find("served-m1")
    assert route is not None
    assert (route.unavailability.state, route.unavailability.wait) == ("stopped", False)


def test_a_sleeping_model_says_so(model):
    route = table_of([model(lifecycle="on_demand")]).find("served-m1")
    assert route is not None
    assert (route.unavailability.state, route.unavailability.wait) == ("starting", True)
    assert "asleep" in route.unavailability.reason


@pytest.mark.parametrize(("retry_s", "final"), [(None, True), (1, False), (2, False), (4, True), (60, True)])
def test_a_failure_is_final_when_nobody_tries_again_soon(model, replica, retry_s, final):
    later = None if retry_s is None else (NOW + timedelta(seconds=retry_s)).isoformat()
    diagnosis = {"code": "no_room", "message": "no room", "fix": "Stop another model."}
    failed = replica(state="failed", reason="no room", next_attempt_at=later, diagnosis=diagnosis)
    route = table_of([model()], [failed]).find("served-m1")
    assert route is not None
    why = route.unavailability
    assert (why.state, why.final, why.reason) == ("failed", final, "no room Stop another model.")


@pytest.mark.parametrize(
    ("load", "fields", "slots"),
    [
        ({"slots_total": 4}, {}, 4),
        ({}, {}, 0),
        ({}, {"engine_type": "vllm", "vllm": {"max_num_seqs": 32}}, 32),
        ({}, {"engine_type": "vllm", "vllm": {"max_num_seqs": 32, "data_parallel_size": 2}}, 64),
        ({}, {"llamacpp": {"parallel_slots": 3}}, 3),
        ({"slots_total": 8}, {"llamacpp": {"parallel_slots": 3}}, 8),
    ],
)
def test_slots_are_what_the_engine_says_else_what_it_was_told(model, replica, verdict, load, fields, slots):
    route = table_of([model(**fields)], [replica()], [verdict(load=load)]).find("served-m1")
    assert route is not None
    assert [target.slots for target in route.targets] == [slots]


def test_a_name_is_harmless_in_a_header(model):
    route = table_of([model(served_model_name="grün\r\nx: y")]).routes[0]
    assert route.label == b"gr?n??x: y"


@pytest.mark.parametrize("url", ["ftp://h:1", "h:1", "http://", "http://h:99999", "unix:/x"])
def test_unusable_endpoints_are_refused(url):
    assert parse_endpoint(url, "k") is None


def test_an_endpoint_may_have_a_path():
    endpoint = parse_endpoint("http://h/base/", "k")
    assert endpoint is not None
    assert (endpoint.port, endpoint.base_path) == (80, "/base")


def test_a_secure_endpoint_is_reached_over_tls():
    endpoint = parse_endpoint("https://h/base", None)
    assert endpoint is not None
    assert (endpoint.port, endpoint.tls, endpoint.head) == (443, True, b"host: h\r\n")


EXTERNAL = [
    {"url": "http://a:1", "served_name": "other-name", "api_key_sealed": "sealed-1"},
    {"url": "http://b:2"},
    {"url": "http://c:3"},
]


def test_endpoints_of_others_are_targets_with_their_own_key_and_name(model, replica, verdict):
    document = model(external=EXTERNAL)
    hashes = [item.spec_hash for item in external_replicas(document)]
    verdicts = [
        verdict(ordinal=0, spec_hash=hashes[0]),
        verdict(ordinal=1, spec_hash=hashes[1]),
        verdict(ordinal=2, spec_hash="of-an-older-endpoint"),
    ]
    route = table_of([document], [replica(ordinal=2)], verdicts).find("served-m1")
    assert route is not None
    assert [(target.replica_id, target.endpoint.port, target.served_name) for target in route.targets] == [
        ("m1-0", 1, "other-name"),
        ("m1-1", 2, None),
    ]
    assert route.targets[0].endpoint.head == b"host: a:1\r\nauthorization: Bearer key-1\r\n"
    assert route.targets[1].endpoint.head == b"host: b:2\r\n", "a derived key is for our own engines"


def test_a_stopped_model_of_others_is_not_routed(model, verdict):
    running = model(external=EXTERNAL)
    verdicts = [verdict(spec_hash=external_replicas(running)[0].spec_hash)]
    route = table_of([model(external=EXTERNAL, desired_state="stopped")], [], verdicts).find("served-m1")
    assert route is not None
    assert (route.targets, route.unavailability.state) == ((), "stopped")
