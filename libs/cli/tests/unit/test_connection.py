import json
from pathlib import Path

import pytest

from cortex_cli.connection import Connection
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.profiles import Profile, Profiles, load_profiles, save_profiles
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


WORK = Profile("https://work", "pat", "alice", "id", "https://gateway")
HERE = Profile("http://127.0.0.1:8081", "pat")


def test_a_named_profile_wins_over_the_environment_which_wins_over_the_current_one(ready_file: Path) -> None:
    profiles = Profiles({"work": WORK, "here": HERE}, "work")
    assert Connection({}, ready_file, profiles).registry().token == "pat"
    environ = {"CORTEX_REGISTRY_URL": "https://r", "CORTEX_ADMIN_TOKEN": "other"}
    assert Connection(environ, ready_file, profiles).registry().url == "https://r"
    named = Connection(environ | {"CORTEX_PROFILE": "work"}, ready_file, profiles).registry()
    assert (named.url, named.token) == ("https://work", "pat")
    local = Connection({"CORTEX_PROFILE": "local"}, ready_file, profiles)
    assert local.registry().token == "admin"


def test_a_profile_borrows_nothing_of_another_cortex_that_runs_here(ready_file: Path) -> None:
    remote = Connection({}, ready_file, Profiles({"work": WORK}, "work"))
    with pytest.raises(CliError, match="has no CORTEX_API_KEY"):
        remote.gateway()
    with pytest.raises(CliError, match="does not say CORTEX_NATS_URL"):
        remote.nats()
    with pytest.raises(CliError, match="CORTEX_ADMIN_TOKEN"):
        Connection(
            {"CORTEX_REGISTRY_URL": "https://elsewhere"}, ready_file, Profiles({"work": WORK}, "work")
        ).registry()
    here = Connection({}, ready_file, Profiles({"here": HERE}, "here"))
    assert (here.registry().token, here.gateway().token, here.nats()) == ("pat", "sk", READY["nats_url"])


def test_profiles_survive_the_file_and_only_their_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "profiles.json"
    assert load_profiles(file) == Profiles()
    save_profiles(file, Profiles().put("work", WORK).put("here", HERE).use("work"))
    assert load_profiles(file) == Profiles({"work": WORK, "here": HERE}, "work")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.write_text('{"current": "gone", "profiles": {"x": 3}}')
    assert load_profiles(file).current is None
    assert "pat" not in repr(WORK)
    with pytest.raises(CliError, match="There is no profile nothing"):
        Profiles().use("nothing")
