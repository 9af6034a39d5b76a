"""When the compiled gateway is used."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from cortex_cli.stack.compiled import PACKAGE, compiled_gateway


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> Path:
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None
    assert found.origin is not None
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shutil.copytree(Path(found.origin).parent, tmp_path / "compiled" / PACKAGE)
    return tmp_path / "compiled"


def test_what_was_made_from_the_sources_that_are_there_is_used(compiled):
    assert compiled_gateway() == compiled


def test_what_was_made_from_other_sources_is_not(compiled):
    (compiled / PACKAGE / "pipeline.py").write_text("# an older one")
    assert compiled_gateway() is None


def test_nothing_is_used_where_nothing_was_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert compiled_gateway() is None
