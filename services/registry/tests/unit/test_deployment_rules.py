"""What a backup holds, and when it may replace a database."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from cortex_kit.errors import DomainError
from cortex_registry.domain.deployment import (
    MAX_ATTEMPTS,
    DatabaseDump,
    DumpedTable,
    Here,
    Job,
    JobKind,
    JobStatus,
    Manifest,
    Part,
    Table,
    after_death,
    check_tables,
    dumped_tables,
    model_paths,
    parts_of,
    problems,
    valid_folder,
)
from cortex_registry.domain.identity import ROOT, Caller
from cortex_registry.settings import Settings
from cortex_registry.wiring.deployment import plain_settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TABLES = (
    Table("admin_tokens", ("id",), frozenset({"users"})),
    Table("users", ("id",), frozenset({"orgs"})),
    Table("orgs", ("id",)),
    Table("sessions", ("id",), frozenset({"users"})),
    Table("outbox", ("id",)),
    Table("usage", ("id",)),
    Table("usage_daily", ("id",)),
    Table("tree", ("id",), frozenset({"tree"})),
)
DUMP = DatabaseDump(migrations={1: "a", 2: "b"}, key_fingerprints=("new", "old"), tables=())
MANIFEST = Manifest("f", NOW, "1.2.3", (Part.DATABASE,), (), DUMP)
HERE = Here({1: "a", 2: "b"}, ("old",))


def test_tables_come_after_those_they_refer_to_and_what_is_of_this_installation_stays() -> None:
    names = [table.name for table in dumped_tables(TABLES, usage=True)]
    assert set(names) == {"orgs", "users", "admin_tokens", "usage", "usage_daily", "tree"}
    assert names.index("orgs") < names.index("users") < names.index("admin_tokens")
    assert not {"usage", "usage_daily"} & {table.name for table in dumped_tables(TABLES, usage=False)}


def test_a_dump_with_other_tables_or_columns_is_refused() -> None:
    good = tuple(DumpedTable(one.name, one.columns, 0, "") for one in dumped_tables(TABLES, usage=True))
    check_tables(replace(DUMP, tables=good), TABLES)
    for bad in (good[1:], (replace(good[0], columns=("id", "more")), *good[1:])):
        with pytest.raises(DomainError) as caught:
            check_tables(replace(DUMP, tables=bad), TABLES)
        assert caught.value.code == "damaged_backup"


@pytest.mark.parametrize(
    ("manifest", "here", "codes", "word"),
    [
        (MANIFEST, HERE, [], ""),
        (replace(MANIFEST, database=None), HERE, ["no_database"], "database"),
        (MANIFEST, replace(HERE, migrations={1: "a"}), ["other_schema"], "Upgrade"),
        (MANIFEST, replace(HERE, migrations={1: "a", 2: "b", 3: "c"}), ["other_schema"], "then upgrade"),
        (MANIFEST, replace(HERE, migrations={1: "a", 2: "x"}), ["other_schema"], "very Cortex"),
        (MANIFEST, replace(HERE, key_fingerprints=("x",)), ["other_secret_key"], "CORTEX_SECRET_KEYS_OLD"),
        (MANIFEST, replace(HERE, running=("m",) * 9), ["models_running"], "cortex model stop"),
        (MANIFEST, Here({}, (), ("m",)), ["other_schema", "other_secret_key", "models_running"], "Upgrade"),
    ],
)
def test_everything_that_stands_against_a_restore_is_named_with_a_way_out(
    manifest: Manifest, here: Here, codes: list[str], word: str
) -> None:
    found = problems(manifest, here)
    assert [one.code for one in found] == codes
    assert not found or word in found[0].fix
    kept = [code for code in codes if code != "other_secret_key"]
    assert [one.code for one in problems(manifest, here, other_secret_key=True)] == kept


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/a", ".a", "a b", "a\n", "ä", "x" * 101, "-a"])
def test_a_name_that_is_a_path_or_hidden_is_refused(name: str) -> None:
    with pytest.raises(DomainError) as caught:
        valid_folder(name)
    assert caught.value.code == "invalid_folder"


def test_every_part_of_a_split_file_and_every_path_of_a_model_is_named() -> None:
    assert parts_of("d/w-00002-of-00003.gguf") == tuple(f"d/w-0000{number}-of-00003.gguf" for number in (1, 2, 3))
    assert parts_of("d/plain.gguf") == ("d/plain.gguf",)
    assert len(parts_of("w-00001-of-99999.gguf")) == 1
    fields: dict[str, Any] = {
        "local_path": "a.gguf",
        "mmproj_path": "p.gguf",
        "draft_model_path": None,
        "lora_adapters": [{"path": "l.gguf"}, {"path": "../up"}],
        "chat_template_file": "/etc/passwd",
    }
    assert model_paths(fields) == ("a.gguf", "p.gguf", "l.gguf")


def test_an_export_whose_registry_died_is_begun_anew_a_few_times_a_restore_never() -> None:
    job = Job("i", JobKind.EXPORT, "f", {}, Caller(ROOT), NOW, status=JobStatus.RUNNING, attempts=1)
    assert after_death(job).status is JobStatus.QUEUED
    for dead in (replace(job, attempts=MAX_ATTEMPTS), replace(job, kind=JobKind.RESTORE)):
        assert after_death(dead).status is JobStatus.FAILED
        assert after_death(dead).failure is not None


def test_settings_of_a_backup_hold_no_secret() -> None:
    settings = Settings(
        nats_url=SecretStr("nats://u:hidden1@h"),
        secret_key=SecretStr("hidden2" * 8),
        secret_keys_old=(SecretStr("hidden3" * 8),),
        database_url=SecretStr("postgresql://u:hidden4@h/d"),
        admin_token=SecretStr("hidden5-hidden5-hidden5"),
        vllm_gen_urls=("http://user:hidden6@gpu:8000/v1",),
    )
    found = plain_settings(settings)
    assert "hidden" not in str(found)
    assert found["vllm_gen_urls"] == ["http://***@gpu:8000/v1"]
    assert found["max_body_bytes"] == 256 * 1024
