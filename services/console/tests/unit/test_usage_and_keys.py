"""Usage and API keys: what is asked for, and how it is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from cortex_console.domain import usage
from cortex_console.domain.api_keys import (
    ApiKey,
    Names,
    access_text,
    body_of,
    changes_of,
    end_of_day,
    ends_soon,
    expiry_text,
    key_row,
    limits_text,
    own_body_of,
    revocation,
)
from cortex_console.domain.usage import UsageFilter, group_row, names_of, percentiles_by_value, record_row, series_of

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_usage_filter_survives_its_address() -> None:
    wanted = UsageFilter("custom", "2026-11-01", "2026-11-03", model="a&b=c", status="5xx")
    query = dict(httpx.URL(wanted.address()).params)
    assert UsageFilter.of(query) == wanted
    assert wanted.period() == {"since": "2026-11-01T00:00:00+00:00", "until": "2026-11-04T00:00:00+00:00"}
    assert dict(httpx.URL(wanted.export()).params)["format"] == "csv"


@pytest.mark.parametrize(
    ("query", "bucket", "range_"),
    [
        ({"range": "1h"}, "minute", "1h"),
        ({"range": "7d"}, "hour", "7d"),
        ({"range": "30d"}, "day", "30d"),
        ({"range": "nonsense"}, "hour", "24h"),
        ({"range": "custom", "since": "2026-11-03", "until": "2026-11-01"}, "hour", "24h"),
        ({"range": "custom", "since": "x"}, "hour", "24h"),
        ({"range": "custom", "since": "2026-01-01", "until": "2026-11-01"}, "day", "custom"),
        ({}, "hour", "24h"),
    ],
)
def test_steps_fit_the_period_and_nonsense_is_a_day(query: dict[str, str], bucket: str, range_: str) -> None:
    wanted = UsageFilter.of(query)
    assert (wanted.bucket, wanted.range) == (bucket, range_)


def test_a_breakdown_says_names_and_shares() -> None:
    group = {
        "key_id": "k1",
        "key_name": "ci",
        "requests": 200,
        "rejected": 3,
        "upstream_error": 1,
        "prompt_tokens": 1500,
    }
    times = percentiles_by_value({"items": [{"value": "k1", "p50": 1200.0, "p95": 2400.0}]})
    shown = group_row(group, "key", UsageFilter(), (times, {}))
    assert (shown["name"], shown["failed"], shown["prompt"], shown["latency"], shown["ttft"]) == (
        "ci",
        "2.0%",
        "1.5k",
        "1.2 s",
        "–",
    )
    assert shown["name_href"] == "/usage?range=24h&key=k1"
    gone = group_row({"key_id": "0123456789", "requests": 0}, "key", UsageFilter(), ({}, {}))
    assert gone["name"] == "01234567… (gone)"
    assert group_row({"model": None}, "model", UsageFilter(), ({}, {}))["name_href"] is None
    assert names_of({"items": [group, {"key_id": None}]}, "key") == {"k1": "ci"}
    assert usage.choices({"a": "A"}, "b") == {"b": "b…", "a": "A"}


def test_records_series_and_shares() -> None:
    record = {
        "request_id": "r",
        "status": 429,
        "outcome": "rejected",
        "key_id": "k1",
        "task": "generate",
        "stream": True,
    }
    shown = record_row(record, {"k1": "ci"}, {}, NOW)
    assert (shown["status"], shown["status_tone"], shown["key"]) == ("429 refused", "warn", "ci")
    answer = {"items": [{"points": [{"at": "t", "completed": 2}]}]}
    assert series_of(answer, {"completed": "completed"}) == {"completed": [["t", 2]]}
    assert series_of({"items": []}, {"completed": "x"}) == {"x": []}
    assert usage.failed_share({"requests": 3}) == "none refused, none failed"
    assert usage.failed_share({}) == "no requests"


def a_key(**fields: Any) -> ApiKey:
    made = (NOW - timedelta(days=60)).isoformat()
    answer = {"id": "k", "version": 1, "name": "ci", "prefix": "sk-cortex-abcd", "state": "active", "created_at": made}
    return ApiKey.of(answer | {"scopes": ["*"], "models": [], "ip_allowlist": [], "priority": "interactive"} | fields)


def test_a_key_is_told_in_a_row() -> None:
    key = a_key(
        models=["a", "b", "c"], scopes=["chat"], requests_per_minute=60, ip_allowlist=["10.0.0.0/8"], user_id="u"
    )
    shown = key_row(key, Names({"u": "alice"}, {}), {"k": 1500}, NOW)
    assert shown["access"] == "a, b and 1 more: chat"
    assert shown["access_note"] == limits_text(key) == "60 requests/min · from 1 network"
    assert (shown["owner"], shown["tokens"], shown["expires"], shown["used"]) == ("alice", "1.5k", "never", "–")
    assert access_text(a_key()) == "All models"


def test_an_end_that_nears_is_a_warning_unless_the_key_was_short_lived() -> None:
    soon = (NOW + timedelta(days=2)).isoformat()
    assert ends_soon(a_key(expires_at=soon), NOW)
    assert not ends_soon(a_key(expires_at=soon, created_at=(NOW - timedelta(days=1)).isoformat()), NOW)
    assert not ends_soon(a_key(), NOW)
    assert expiry_text((NOW + timedelta(hours=3)).isoformat(), NOW) == "in 3 h"


def test_a_form_becomes_a_body_and_only_what_differs_becomes_a_change() -> None:
    values = {"name": "ci", "scopes": ["*"], "models": [], "requests_per_minute": 60.0, "ip_allowlist": "10.0.0.0/8, ::1",
              "expires_at": "2026-12-01", "priority": "interactive", "user_id": "", "org_id": "o"}  # fmt: skip
    body = body_of(values)
    assert body["expires_at"] == "2026-12-01T23:59:59+00:00"
    assert (body["ip_allowlist"], body["requests_per_minute"]) == (["10.0.0.0/8", "::1"], 60)
    assert (body["user_id"], body["org_id"]) == (None, "o")
    assert "scopes" not in own_body_of(values)
    assert "tokens_per_minute" not in own_body_of(values)
    assert end_of_day("tomorrow") == "tomorrow"
    key = a_key(expires_at="2026-12-01T10:00:00Z", requests_per_minute=60, org_id="o")
    assert changes_of(key, values) == {"ip_allowlist": ["10.0.0.0/8", "::1"]}
    assert changes_of(key, values | {"expires_at": "", "ip_allowlist": ""}) == {"expires_at": None}


def test_revoking_what_is_in_use_is_warned_of() -> None:
    used = a_key(last_used_at=(NOW - timedelta(minutes=5)).isoformat())
    assert "last hour" in revocation(used, NOW)[0]
    assert "last hour" not in revocation(a_key(), NOW)[0]
