"""Endpoints that others run: addresses, specifications, patches."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue, SecretStr, ValidationError

from cortex_contracts.base import ModelId
from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.enums import ModelState, Verdict
from cortex_contracts.external import external_replicas
from cortex_kit.errors import DomainError
from cortex_registry.domain.model import Model
from cortex_registry.domain.state import project
from cortex_registry.domain.upstream_urls import base_url
from cortex_registry.domain.upstreams import (
    EndpointSpecification,
    UpstreamSpecification,
    changed_upstream,
    changed_upstream_fields,
    describe_upstream,
    merge_upstream,
    name_from,
    new_upstream,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("http://10.0.0.5:8000", "http://10.0.0.5:8000"),
        ("http://10.0.0.5:8000/v1/", "http://10.0.0.5:8000"),
        ("https://Example.ORG/team-a/v1", "https://example.org/team-a"),
        ("http://localhost", "http://localhost"),
        ("http://vllm_1:8000", "http://vllm_1:8000"),
        ("http://127.1:80", "http://127.0.0.1:80"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_has_one_form(given: str, stored: str) -> None:
    assert base_url(given) == stored
    assert base_url(stored) == stored


@pytest.mark.parametrize(
    "url",
    [
        "",
        "10.0.0.5:8000",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "http://user:secret@host",
        "http://secret@host",
        "http://host?x=1",
        "http://host#x",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://ho st",
        "http://host\r\nx: y",
        "http://host/\u202e",
        "http://hóst",
        "http://host\\@evil",
        "http://-host",
        "http://a..b",
        "http://host/a/../b",
        "http://[::1",
        "http://169.254.169.254",
        "http://2852039166",
        "http://0xA9FEA9FE/latest",
        "http://0251.0376.0251.0376",
        "http://[::ffff:169.254.169.254]",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://[fd00:ec2::254]",
        "http://metadata.google.internal",
        "http://METADATA.google.internal.",
        "http://0.0.0.0:8000",
        "http://[::]",
        "http://224.0.0.1",
        "http://255.255.255.255",
        "http://" + "a" * 600,
    ],
)
def test_an_address_that_must_not_be_stored_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        base_url(url)
    assert "secret" not in str(refusal.value)


def upstream(**changes: Any) -> UpstreamSpecification:
    fields = {"served_model_name": "m", "endpoints": [{"url": "http://a:1", "api_key": "key-a"}, {"url": "http://b:2"}]}
    return UpstreamSpecification.model_validate(fields | changes)


def made(**changes: Any) -> Model:
    return new_upstream(upstream(**changes), model_id=ModelId("0-1"), now=NOW, seal=lambda plain: f"sealed({plain})")


def patched(model: Model, patch: dict[str, JsonValue], rekeyed: frozenset[int] = frozenset()) -> Model:
    specification = merge_upstream(model.document, patch)
    return changed_upstream(model, specification, now=NOW, seal=lambda plain: f"sealed({plain})", rekeyed=rekeyed)


def test_a_key_is_sealed_and_never_described() -> None:
    model = made()
    assert [endpoint.api_key_sealed for endpoint in model.document.external] == ["sealed(key-a)", None]
    assert "key-a" not in str(describe_upstream(model.document))
    assert "sealed" not in str(describe_upstream(model.document))


def test_an_endpoint_keeps_its_key_through_a_patch_unless_it_is_given_another_or_none() -> None:
    model = made()
    kept = patched(model, {"endpoints": [{"url": "http://b:2"}, {"url": "http://a:1/v1"}]})
    assert [endpoint.api_key_sealed for endpoint in kept.document.external] == [None, "sealed(key-a)"]
    other = patched(model, {"endpoints": [{"url": "http://a:1", "api_key": "new"}]})
    assert [endpoint.api_key_sealed for endpoint in other.document.external] == ["sealed(new)"]
    assert changed_upstream_fields(model.document, other.document) == ("endpoints",)
    dropped = patched(model, {"endpoints": [{"url": "http://a:1", "api_key": None}]}, rekeyed=frozenset({0}))
    assert [endpoint.api_key_sealed for endpoint in dropped.document.external] == [None]


def test_a_patch_changes_what_it_names_and_null_puts_a_default_back() -> None:
    model = made(aliases=["x"], request_timeout_s=9)
    after = patched(model, {"aliases": None, "enabled": False})
    assert (after.document.aliases, after.document.request_timeout_s) == ((), 9.0)
    assert changed_upstream_fields(model.document, after.document) == ("aliases", "enabled")
    assert after.version == 2
    with pytest.raises(DomainError) as refusal:
        merge_upstream(model.document, {"engine_type": "llamacpp"})
    assert refusal.value.details["errors"] == [
        {
            "field": "engine_type",
            "code": "immutable",
            "message": "engine_type cannot change: register another upstream.",
        }
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoints": []},
        {"endpoints": [{"url": "http://a:1"}, {"url": "http://a:1/v1"}]},
        {"endpoints": [{"url": "http://a:1"}] * 17},
        {"endpoints": [{"url": "http://a:1", "api_key": "two words"}]},
        {"endpoints": [{"url": "http://a:1", "api_key": "x\r\nhost: evil"}]},
        {"endpoints": [{"url": "http://a:1", "api_key": ""}]},
        {"endpoints": [{"url": "http://a:1", "password": "x"}]},
        {"served_model_name": "0197f2a0-0000-7000-8000-000000000001"},
        {"served_model_name": "a b"},
        {"aliases": ["m"]},
        {"request_defaults": {"a": "\x00"}},
        {"request_timeout_s": 0},
        {"request_timeout_s": float("inf")},
        {"hf_token": "x"},
    ],
)
def test_a_wrong_upstream_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        upstream(**changes)


def test_the_state_of_an_external_model_follows_from_verdicts_alone() -> None:
    document = made().document

    def verdict(ordinal: int, word: Verdict) -> VerdictDocumentV1:
        replica = external_replicas(document)[ordinal]
        return VerdictDocumentV1(
            aggregateversion=1,
            replica_id=replica.id,
            model_id=document.id,
            spec_hash=replica.spec_hash,
            endpoint=replica.endpoint or "",
            verdict=word,
            reason="connection refused" if word is Verdict.UNHEALTHY else "answers",
            since=NOW,
        )

    def state(*verdicts: VerdictDocumentV1) -> ModelState:
        return project(document, [], verdicts, desired_since=NOW).state

    up, down = Verdict.HEALTHY, Verdict.UNHEALTHY
    assert state() is ModelState.LOADING
    assert state(verdict(0, up), verdict(1, up)) is ModelState.RUNNING
    assert state(verdict(0, up), verdict(1, down)) is ModelState.DEGRADED
    assert state(verdict(0, down), verdict(1, down)) is ModelState.FAILED
    stopped = patched(made(), {"enabled": False}).document
    assert project(stopped, [], [verdict(0, up)], desired_since=NOW).state is ModelState.STOPPED


@pytest.mark.parametrize(
    ("offered", "name"),
    [
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("/models/gpt-oss-120b.gguf", "gpt-oss-120b.gguf"),
        ("My Model", "my-model"),
        ("/", None),
        ("模型", None),
    ],
)
def test_a_discovered_model_is_served_under_a_usable_name(offered: str, name: str | None) -> None:
    assert name_from(offered) == name


def test_an_endpoint_never_shows_its_key() -> None:
    assert "key-a" not in repr(EndpointSpecification(url="http://a:1", api_key=SecretStr("key-a")))
