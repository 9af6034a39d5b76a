"""docs/observability.md lists the metrics that there are."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "observability.md"
NAMES_OF_BEFORE = (
    "gateway_requests_total",
    "gateway_request_latency_seconds",
    "gateway_upstream_latency_seconds",
    "gateway_upstream_latency_by_upstream_seconds",
    "gateway_stream_ttft_seconds",
    "gateway_upstream_selected_total",
    "gateway_upstream_success_total",
    "gateway_upstream_error_total",
    "gateway_upstream_retries_total",
    "gateway_breaker_open_total",
    "gateway_stream_blocked_total",
    "gateway_key_auth_allowed_total",
    "gateway_key_auth_blocked_total",
    "gateway_ratelimit_allowed_total",
    "gateway_ratelimit_blocked_total",
    "gateway_upstream_health",
    "gateway_timeout_errors_total",
    "gateway_request_cancellations_total",
    "gateway_upstream_health_degradation_total",
    "gateway_upstream_latency_by_engine_seconds",
    "gateway_upstream_selected_by_engine_total",
)


@pytest.mark.slow
def test_the_page_is_the_code_s():
    made = subprocess.run(
        [sys.executable, ROOT / "deploy" / "render_metrics.py", "--print"],
        capture_output=True,
        text=True,
        check=True,
        timeout=25,
    )
    assert made.stdout == PAGE.read_text(), "run: make docs"


@pytest.mark.parametrize("name", NAMES_OF_BEFORE)
def test_the_names_that_dashboards_know_are_still_there(name: str):
    assert f"| `{name}` |" in PAGE.read_text()
