from pathlib import Path

import pytest

from cortex_cli.errors import CliError, StackError
from cortex_cli.stack import nats, ports, services
from cortex_cli.stack.home import Home
from cortex_cli.stack.postgres import data_major, socket_folder
from cortex_cli.stack.postgres_binaries import Binaries, choose
from cortex_cli.stack.secrets import Secrets
from cortex_contracts.subjects import EVENT_SUBJECTS

SECRETS = Secrets(*("abcdefgh" * 4 + str(n) for n in range(5)))
PORTS: dict[str, int] = dict(zip((*services.SERVICES, "nats", "postgres"), range(21000, 21008), strict=True))


def test_nats_listens_on_loopback_syncs_always_and_knows_two_users() -> None:
    config = nats.render_config(port=4333, store=Path("/a folder/store"), secrets=SECRETS)
    assert 'listen: "127.0.0.1:4333"' in config
    assert 'store_dir: "/a folder/store"' in config
    assert "sync_interval: always" in config
    assert "max_memory_store:" in config
    assert "max_file_store:" in config
    assert "http" not in config
    operator = config[config.index("user: operator") :]
    assert 'publish: { deny: [">"] }' in operator
    assert all(f'"{subject}"' in operator for subject in EVENT_SUBJECTS)
    assert "_INBOX" not in operator
    assert "$" not in operator


def test_services_get_their_wiring_over_what_the_shell_says() -> None:
    home = Home(Path("/home/x"))
    wiring = services.Wiring(home, PORTS, home.models, "nats://u:p@h:1", "postgresql://d", "s" * 32, "t" * 32)
    env = services.environment(wiring, {"PATH": "/bin", "CORTEX_NATS_URL": "nats://other", "CORTEX_LOG_LEVEL": "debug"})
    assert env["PATH"] == "/bin"
    assert env["CORTEX_LOG_LEVEL"] == "debug"
    assert env["CORTEX_NATS_URL"] == "nats://u:p@h:1"
    assert env["CORTEX_REGISTRY_DATABASE_URL"] == "postgresql://d"
    assert env["CORTEX_REGISTRY_ADMIN_TOKEN"] == "t" * 32
    assert env["CORTEX_GATEWAY_SPOOL_DIR"] == "/home/x/spool"
    assert env["CORTEX_ORCHESTRATOR_STATE_DIR"] == "/home/x/engines"
    assert env["CORTEX_INSPECTOR_PORT"] == str(PORTS[services.INSPECTOR])
    assert {
        env[f"CORTEX_{name}_HOST"] for name in ("GATEWAY", "REGISTRY", "ORCHESTRATOR", "HEALTH", "INSPECTOR", "CONSOLE")
    } == {"127.0.0.1"}
    assert services.program(services.INSPECTOR)[1:] == ("-m", "cortex_gguf_inspector")


def test_secrets_are_in_no_repr() -> None:
    wiring = services.Wiring(Home(Path("/h")), PORTS, Path("/m"), "nats://u:pw@h", "postgresql://pw", "key", "token")
    shown = repr(SECRETS) + repr(wiring)
    assert not any(value in shown for value in ("abcdefgh", "pw", "token="))


@pytest.mark.parametrize(
    ("remembered", "taken", "expected"),
    [
        pytest.param({}, set[int](), {"a": 1, "b": 2}, id="new ports"),
        pytest.param({"a": 7, "b": 8}, set[int](), {"a": 7, "b": 8}, id="remembered ones are kept"),
        pytest.param({"a": 7, "b": 8}, {7}, {"a": 1, "b": 8}, id="a taken one is replaced"),
        pytest.param({"a": 7, "b": 7}, set[int](), {"a": 7, "b": 1}, id="never twice the same"),
        pytest.param({"a": 9}, {1}, {"a": 2, "b": 3}, id="a reserved one is not used"),
    ],
)
def test_ports_are_remembered_while_free(remembered: dict[str, int], taken: set[int], expected: dict[str, int]) -> None:
    given = ports.assign(
        ("a", "b"), remembered, reserved=[9], free=lambda port: port not in taken, candidates=range(1, 7)
    )
    assert given == expected


def test_without_a_free_port_it_says_so() -> None:
    with pytest.raises(StackError, match="no free port"):
        ports.assign(("a",), {}, free=lambda port: False, candidates=range(1, 4))


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80.0"])
def test_a_port_variable_must_be_a_port(text: str) -> None:
    with pytest.raises(CliError, match=f"CORTEX_GATEWAY_PORT={text}"):
        ports.public_port({"CORTEX_GATEWAY_PORT": text}, "CORTEX_GATEWAY_PORT", 8080)


def test_an_empty_port_variable_means_the_default() -> None:
    assert ports.public_port({"CORTEX_GATEWAY_PORT": ""}, "CORTEX_GATEWAY_PORT", 8080) == 8080


SYSTEM, WHEEL = Binaries(Path("/usr/lib/postgresql/15/bin"), 15), Binaries(Path("/venv/bin"), 18, Path("/venv"))


@pytest.mark.parametrize(
    ("available", "data", "expected"),
    [
        pytest.param([SYSTEM, WHEEL], None, SYSTEM, id="the system's comes first"),
        pytest.param([WHEEL], None, WHEEL, id="else the wheel's"),
        pytest.param([SYSTEM, WHEEL], 18, WHEEL, id="existing data decides"),
    ],
)
def test_which_postgres_runs(available: list[Binaries], data: int | None, expected: Binaries) -> None:
    assert choose(available, data) is expected


@pytest.mark.parametrize(
    ("available", "data", "text"), [([], None, "no PostgreSQL"), ([SYSTEM], 18, "made by PostgreSQL 18")]
)
def test_without_a_fitting_postgres_it_says_so(available: list[Binaries], data: int | None, text: str) -> None:
    with pytest.raises(StackError, match=text):
        choose(available, data)


def test_a_socket_path_that_is_too_long_means_no_socket() -> None:
    assert socket_folder(Path("/short"), 5432) == "/short"
    assert socket_folder(Path("/" + "x" * 100), 5432) == ""


@pytest.mark.parametrize(("text", "major"), [("18\n", 18), ("9.6", 9), (None, None)])
def test_the_version_of_a_data_folder(tmp_path: Path, text: str | None, major: int | None) -> None:
    if text is not None:
        (tmp_path / "PG_VERSION").write_text(text)
    assert data_major(tmp_path) == major
