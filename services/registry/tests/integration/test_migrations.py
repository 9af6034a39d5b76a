"""The migration runner, and the upgrade of a database that was in use."""

import asyncio
import dataclasses
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import VllmOptions
from cortex_registry.adapters.migrate_command import run_migrations
from cortex_registry.adapters.migrations import SchemaProblemError, check, load_migrations, migrate
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.records import model_from_row
from cortex_registry.errors import DatabaseUnavailableError, SchemaError

pytestmark = pytest.mark.integration

IDS = ("01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002")


@pytest.fixture
async def empty(postgres_dsn: str) -> Any:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


async def test_a_database_full_of_vllm_models_is_upgraded_and_nothing_else_changes(empty: Any) -> None:
    await migrate(empty, load_migrations()[:1])
    await empty.execute(
        """
        INSERT INTO models (id, name, served_model_name, aliases, repo_id, dtype, tp_size, gpu_memory_utilization,
                            max_model_len, enforce_eager, engine_options, extra_args, extra_env, replicas, placement,
                            desired_state, request_defaults, hf_token_sealed, version)
        VALUES ($1, 'Big', 'big', '{b,huge}', 'org/big', 'bfloat16', 4, 0.85, 32768, TRUE,
                '{"tool_call_parser": "hermes"}', '{--seed,1}', '{"NCCL_DEBUG": "INFO"}', 2, '[0, 1]', 'running',
                '{"temperature": 0.2}', 'sealed', 7),
               ($2, 'Small', 'small', '{}', 'org/small', NULL, NULL, NULL, NULL, NULL, '{}', '{}', '{}', 1, '"auto"',
                'stopped', '{}', NULL, 1)
        """,
        *IDS,
    )
    await empty.execute("INSERT INTO served_names SELECT served_model_name, id FROM models")
    before = {row["id"]: dict(row) for row in await empty.fetch("SELECT * FROM models")}

    assert [one.version for one in await migrate(empty)] == [one.version for one in load_migrations()[1:]]

    after = await empty.fetch("SELECT * FROM models ORDER BY id")
    for row in after:
        assert row["engine_type"] == "vllm"
        assert {column: row[column] for column in before[row["id"]]} == before[row["id"]]
    big, small = (model_from_row(row) for row in after)
    assert big.document == ModelDocumentV1(
        aggregateversion=7,
        id=big.id,
        name="Big",
        served_model_name="big",
        aliases=("b", "huge"),
        engine_type="vllm",
        repo_id="org/big",
        vllm=VllmOptions(
            dtype="bfloat16",
            tp_size=4,
            gpu_memory_utilization=0.85,
            max_model_len=32768,
            enforce_eager=True,
            tool_call_parser="hermes",
        ),
        extra_args=("--seed", "1"),
        extra_env={"NCCL_DEBUG": "INFO"},
        hf_token_sealed="sealed",
        replicas=2,
        placement=(0, 1),
        desired_state="running",
        request_defaults={"temperature": 0.2},
    )
    assert small.document.vllm == VllmOptions()
    assert small.document.llamacpp is None


async def test_the_llamacpp_columns_are_the_plans(empty: Any) -> None:
    await migrate(empty)
    rows = await empty.fetch(
        """
        SELECT column_name, data_type, character_maximum_length, column_default, is_nullable
        FROM information_schema.columns WHERE table_name = 'models'
        """
    )
    columns = {row["column_name"]: tuple(row)[1:] for row in rows}
    text = "character varying"
    assert columns["engine_type"] == (text, 16, "'vllm'::character varying", "NO")
    assert {
        "ngl": ("integer", None, None, "YES"),
        "tensor_split": (text, 128, None, "YES"),
        "batch_size": ("integer", None, "512", "YES"),
        "threads": ("integer", None, None, "YES"),
        "context_size": ("integer", None, "8192", "YES"),
        "rope_freq_base": ("double precision", None, None, "YES"),
        "rope_freq_scale": ("double precision", None, None, "YES"),
        "flash_attention": ("boolean", None, "true", "YES"),
        "mlock": ("boolean", None, "false", "YES"),
        "no_mmap": ("boolean", None, "false", "YES"),
        "numa_policy": (text, 32, None, "YES"),
        "split_mode": (text, 32, None, "YES"),
    }.items() <= columns.items()
    assert await empty.fetchval("SELECT to_regclass('idx_models_engine_type')") is not None


async def test_many_migrators_at_once_apply_each_file_once(postgres_dsn: str) -> None:
    done = await asyncio.gather(
        *(run_migrations(SecretStr(postgres_dsn), only_check=False, wait_s=5) for _ in range(5))
    )
    assert done == [True] * 5
    assert await run_migrations(SecretStr(postgres_dsn), only_check=True, wait_s=5)


async def test_a_changed_file_is_refused_and_nothing_is_applied(empty: Any) -> None:
    first, second = load_migrations()[:2]
    await migrate(empty, [first])
    tampered = dataclasses.replace(first, sql=first.sql + "\n-- changed")
    with pytest.raises(SchemaProblemError, match=r"0001.*was changed"):
        await migrate(empty, [tampered, second])
    with pytest.raises(SchemaProblemError, match="lacks migration 0002"):
        await check(empty)


async def test_a_failing_file_leaves_no_trace_and_does_not_keep_the_lock(empty: Any, postgres_dsn: str) -> None:
    first, second = load_migrations()[:2]
    broken = dataclasses.replace(second, sql="CREATE TABLE half (x integer); SELECT nonsense FROM nowhere;")
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(empty, [first, broken])
    assert await empty.fetchval("SELECT to_regclass('half')") is None
    assert await run_migrations(SecretStr(postgres_dsn), only_check=False, wait_s=5)


async def test_a_service_refuses_an_empty_database_and_makes_nothing_in_it(empty: Any, postgres_dsn: str) -> None:
    assert not await run_migrations(SecretStr(postgres_dsn), only_check=True, wait_s=5)
    database = Database(SecretStr(postgres_dsn), size=2, acquire_timeout_s=2, command_timeout_s=2)
    await database.open()
    try:
        with pytest.raises(SchemaError, match="holds no Cortex schema"):
            await database.run()
        with pytest.raises(DatabaseUnavailableError):
            async with database.connection():
                pass
    finally:
        await database.close()
    assert await empty.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
