"""The audit log's exports."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cortex_registry.domain.audit import COLUMNS, AuditEntry, csv_header, like, to_csv, to_jsonl


def entry(**changes: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "id": 1,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "actor": "alice",
        "action": "model.update",
        "subject": "model/m",
        "request_id": "r",
        "user_id": None,
        "address": "10.0.0.1",
        "detail": {"changed": ["name"], "before": {"name": "a"}, "after": {"name": "b"}, "note": 1},
    }
    return AuditEntry(**(values | changes))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_a_spreadsheet_becomes_a_formula(name: str) -> None:
    row = next(csv.reader(io.StringIO(to_csv([entry(actor=name)]), newline="")))
    assert row[COLUMNS.index("actor")] == f"'{name}"


def test_commas_quotes_and_line_breaks_survive() -> None:
    name = 'a,"b"\r\nc;d'
    text = csv_header() + to_csv([entry(actor=name, detail={})])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["actor"] == name
    assert (row["before"], row["detail"]) == ("", "")


def test_each_line_is_one_entry_with_everything_it_holds() -> None:
    lines = to_jsonl([entry(), entry(id=2, actor="b\nc")]).splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["changed"], first["before"], first["after"]) == (["name"], {"name": "a"}, {"name": "b"})
    assert first["detail"] == {"note": 1}
    assert second["actor"] == "b\nc"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, None), ("model.update", "model.update"), ("model.*", "model.%"), ("a_b%*", "a\\_b\\%%"), ("*", "%")],
)
def test_a_star_at_the_end_is_the_rest_and_nothing_else_is_special(pattern: str | None, expected: str | None) -> None:
    assert like(pattern) == expected
