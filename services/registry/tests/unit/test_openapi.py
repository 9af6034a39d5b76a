"""The committed description of the admin API is the code's."""

from pathlib import Path

import pytest

from cortex_registry.openapi import render_openapi


@pytest.mark.slow
def test_committed_openapi_matches_the_code() -> None:
    committed = Path(__file__).parents[4] / "docs" / "api" / "openapi.json"
    assert committed.read_text() == render_openapi(), "run `make docs`"
