"""Plans that need no database."""

import dataclasses
import inspect

import pytest

from cortex_contracts.documents import Document
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_registry.adapters import keys, models, outbox, usage
from cortex_registry.adapters.migrations import Migration, SchemaProblemError, load_migrations, outstanding
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import LLAMACPP_COLUMNS, VLLM_COLUMNS
from cortex_registry.domain.outbox import plan_mirror


def doc(version: int) -> Document:
    return Document(aggregateversion=version)


def test_the_mirror_is_made_equal_with_as_few_writes_as_needed() -> None:
    wanted = {"same": doc(1), "new": doc(1), "older": doc(3), "broken": doc(1), "ahead": doc(2)}
    stored = {"same": doc(1), "older": doc(2), "broken": None, "ahead": doc(9), "gone": doc(1), "junk": None}
    plan = plan_mirror(wanted, stored)
    assert plan.puts == ("new", "older", "broken")
    assert plan.deletes == ("gone", "junk")
    assert plan.ahead == {"ahead": 9}


FIRST, SECOND, THIRD = (Migration(number, f"m{number}", f"SELECT {number}") for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("applied", "missing"),
    [
        ([], [1, 2]),
        ([FIRST], [2]),
        ([FIRST, SECOND], []),
        ([FIRST, SECOND, THIRD], []),
    ],
)
def test_only_what_is_missing_is_applied(applied: list[Migration], missing: list[int]) -> None:
    found = outstanding([FIRST, SECOND], {one.version: one.sha256 for one in applied})
    assert [one.version for one in found] == missing


def test_a_changed_or_skipped_file_is_refused() -> None:
    with pytest.raises(SchemaProblemError, match="was changed"):
        outstanding([FIRST], {1: dataclasses.replace(FIRST, sql="").sha256})
    with pytest.raises(SchemaProblemError, match="was never applied"):
        outstanding([FIRST, SECOND], {2: SECOND.sha256})


def test_the_packages_migrations_are_numbered_from_one() -> None:
    assert [one.version for one in load_migrations()] == list(range(1, len(load_migrations()) + 1))


@pytest.mark.parametrize(
    ("module", "names"),
    [(models, ["models"]), (keys, ["keys"]), (usage, ["usage"]), (outbox, ["outbox", "models", "keys"])],
)
def test_every_query_that_is_named_exists(module: object, names: list[str]) -> None:
    known = {query for name in names for query in load_queries(name)}
    source = inspect.getsource(module)  # type: ignore[arg-type]
    used = {part.split('"')[1] for part in source.split("_SQL[")[1:] + source.split("_MODELS[")[1:] if '"' in part}
    assert used <= known


def test_every_column_is_an_option_of_its_engine() -> None:
    assert set(LLAMACPP_COLUMNS) <= set(LlamaCppOptions.model_fields)
    assert set(VLLM_COLUMNS) <= set(VllmOptions.model_fields)
    assert len(LLAMACPP_COLUMNS) == 12
