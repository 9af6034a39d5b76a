"""Settings become the policy."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from cortex_health.domain.verdicts import Policy
from cortex_health.settings import Settings


def test_the_defaults_are_the_policy_s_own(secret_key: str):
    settings = Settings(nats_url=SecretStr("nats://127.0.0.1"), secret_key=SecretStr(secret_key))
    assert settings.policy() == Policy()
    assert settings.port == 8083


def test_the_environment_changes_the_policy(secret_key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORTEX_HEALTH_YOUNG_S", "60")
    monkeypatch.setenv("CORTEX_HEALTH_UNHEALTHY_AFTER", "5")
    policy = Settings(nats_url=SecretStr("nats://127.0.0.1"), secret_key=SecretStr(secret_key)).policy()
    assert (policy.young, policy.unhealthy_after) == (timedelta(seconds=60), 5)
