import json
from pathlib import Path

import pytest

from cortex_cli.connection import Connection
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.stack.home import find_home

READY = {
    "registry_url": "http://127.0.0.1:8081",
    "admin_token": "admin",
    "gateway_url": "http://127.0.0.1:8080",
    "api_key": "sk",
    "nats_url": "nats://u:p@127.0.0.1:4222",
}


@pytest.fixture
def ready_file(tmp_path: Path) -> Path:
    file = tmp_path / "ready.json"
    file.write_text(json.dumps(READY))
    return file


def test_addresses_come_from_the_ready_file(ready_file: Path) -> None:
    known = Connection({}, ready_file)
    assert (known.registry().url, known.registry().token) == ("http://127.0.0.1:8081", "admin")
    assert (known.gateway().url, known.gateway().token) == ("http://127.0.0.1:8080", "sk")
    assert known.nats() == READY["nats_url"]


def test_the_environment_overrides_the_ready_file(ready_file: Path) -> None:
    environ = {"CORTEX_REGISTRY_URL": "https://r/", "CORTEX_ADMIN_TOKEN": "other", "CORTEX_API_KEY": "mine"}
    known = Connection(environ, ready_file)
    assert (known.registry().url, known.registry().token) == ("https://r", "other")
    assert (known.gateway().url, known.gateway().token) == ("http://127.0.0.1:8080", "mine")


def test_a_local_token_is_never_sent_to_another_address(ready_file: Path) -> None:
    with pytest.raises(CliError, match="CORTEX_ADMIN_TOKEN"):
        Connection({"CORTEX_REGISTRY_URL": "https://elsewhere"}, ready_file).registry()
    with pytest.raises(CliError, match="CORTEX_API_KEY"):
        Connection({"CORTEX_GATEWAY_URL": "https://elsewhere"}, ready_file).gateway()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"registry_url": 3}'])
def test_without_a_ready_file_it_does_not_run(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ready.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CliError) as caught:
        Connection({}, file).registry()
    assert caught.value.exit_code is ExitCode.NOT_RUNNING


def test_the_token_is_not_in_the_repr(ready_file: Path) -> None:
    assert "admin" not in repr(Connection({}, ready_file).registry()).replace("admin_token", "")


def test_home_is_the_option_then_the_variable_then_the_users_folder(tmp_path: Path) -> None:
    environ = {"CORTEX_HOME": str(tmp_path / "b")}
    assert find_home(tmp_path / "a", environ).root == tmp_path / "a"
    assert find_home(None, environ).root == tmp_path / "b"
    assert find_home(None, {}).root.name == "cortex"
