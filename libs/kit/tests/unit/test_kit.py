"""Pure parts of the kit."""

import uuid

import pytest
from pydantic import SecretStr, ValidationError

from cortex_kit.broker import retry_delay
from cortex_kit.bus import split_url
from cortex_kit.clock import next_version
from cortex_kit.errors import PermanentError
from cortex_kit.ids import uuid7
from cortex_kit.secrets import engine_api_key, reseal, seal, unseal
from cortex_kit.settings import ServiceSettings

KEY = SecretStr("k" * 40)


class Settings(ServiceSettings, service="gguf-inspector"):
    port: int = 8084


def test_uuid7_is_a_version_7_uuid_and_sorts_by_time() -> None:
    ids = [uuid7() for _ in range(50)]
    assert {uuid.UUID(value).version for value in ids} == {7}
    assert [value[:13] for value in ids] == sorted(value[:13] for value in ids)
    assert len(set(ids)) == 50


def test_document_versions_grow_even_when_the_clock_stands_still() -> None:
    last = next_version(0)
    assert next_version(last + 10**12) == last + 10**12 + 1


def test_engine_keys_differ_by_replica_and_incarnation() -> None:
    keys = {engine_api_key(KEY, replica, spec) for replica in ("a-0", "a-1") for spec in ("x", "y")}
    assert len(keys) == 4
    assert engine_api_key(KEY, "a-0", "x") in keys


def test_sealed_secrets_open_with_their_key_only() -> None:
    sealed = seal(KEY, "hf_token")
    assert "hf_token" not in sealed
    assert unseal(KEY, sealed) == "hf_token"
    with pytest.raises(PermanentError):
        unseal(SecretStr("z" * 40), sealed)


def test_a_key_of_before_opens_what_it_sealed_and_seals_nothing() -> None:
    new, older = SecretStr("n" * 40), SecretStr("o" * 40)
    sealed = seal(KEY, "hf_token")
    assert unseal(new, sealed, [older, KEY]) == "hf_token"
    again = reseal(new, sealed, [older, KEY])
    assert unseal(new, again) == "hf_token"
    assert reseal(new, again, [older, KEY]) == again, "what is sealed with the present key stays as it is"
    with pytest.raises(PermanentError):
        unseal(KEY, again)
    with pytest.raises(PermanentError):
        reseal(new, sealed, [older])


def test_keys_of_before_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_NATS_URL", "nats://h:1")
    monkeypatch.setenv("CORTEX_SECRET_KEY", "x" * 32)
    assert Settings().secret_keys_old == ()  # type: ignore[call-arg]
    monkeypatch.setenv("CORTEX_SECRET_KEYS_OLD", f" {'a' * 32}, {'b' * 40},")
    settings = Settings()  # type: ignore[call-arg]
    assert [key.get_secret_value() for key in settings.secret_keys_old] == ["a" * 32, "b" * 40]
    assert "aaaa" not in repr(settings)
    monkeypatch.setenv("CORTEX_SECRET_KEYS_OLD", "short")
    with pytest.raises(ValidationError) as error:
        Settings()  # type: ignore[call-arg]
    assert "32 characters" in str(error.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://host:4222", ("nats://host:4222", None, None)),
        ("nats://host", ("nats://host:4222", None, None)),
        ("tls://u:p%40ss@host:1", ("tls://host:1", "u", "p@ss")),
    ],
)
def test_credentials_are_split_from_the_nats_url(url: str, expected: tuple[str, str | None, str | None]) -> None:
    assert split_url(SecretStr(url)) == expected


def test_retry_delay_grows_to_a_limit() -> None:
    delays = [retry_delay(n) for n in range(1, 12)]
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


def test_settings_read_shared_and_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_NATS_URL", "nats://u:secret@h:1")
    monkeypatch.setenv("CORTEX_SECRET_KEY", "s" * 32)
    monkeypatch.setenv("CORTEX_GGUF_INSPECTOR_PORT", "9")
    settings = Settings()  # type: ignore[call-arg]
    assert settings.port == 9
    assert "u:secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 10  # type: ignore[misc]


def test_a_short_secret_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_NATS_URL", "nats://h:1")
    monkeypatch.setenv("CORTEX_SECRET_KEY", "short")
    with pytest.raises(ValidationError):
        Settings()  # type: ignore[call-arg]
