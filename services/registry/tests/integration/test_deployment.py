"""Backups and restores on a real Postgres, real disks, real JetStream."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet
from nats.js.errors import NoKeysError

from cortex_registry.adapters.dump import PostgresDumps, PostgresSnapshot
from cortex_registry.adapters.export_folder import ExportRoot, Staging

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

MODEL = {"name": "m", "engine_type": "llamacpp", "local_path": "m/model.gguf"}


@pytest.fixture
async def backed(start_registry: Callable[..., Any], tmp_path: Path, inspector: Any) -> AsyncIterator[Any]:
    models = tmp_path / "models"
    models.mkdir()
    async with start_registry(export_dir=tmp_path / "exports", models_dir=models, backup_poll_s=0.1) as registry:
        await registry.ready()
        yield registry


async def ended(registry: Any, job: Any, eventually: Callable[..., Any]) -> Any:
    async def over() -> Any:
        found = (await registry.client.get(f"/admin/deployment/jobs/{job['id']}")).json()
        return found if found["status"] not in ("queued", "running") else None

    return await eventually(over, 30)


async def export(registry: Any, eventually: Callable[..., Any], **body: Any) -> Any:
    asked = await registry.client.post("/admin/deployment/export", json=body)
    assert asked.status_code == 202, asked.text
    return await ended(registry, asked.json(), eventually)


async def restore(registry: Any, eventually: Callable[..., Any], folder: str, **body: Any) -> Any:
    asked = await registry.client.post(
        "/admin/deployment/restore-database", json={"folder": folder, "confirm": folder, **body}
    )
    assert asked.status_code == 202, asked.text
    return await ended(registry, asked.json(), eventually)


async def put_usage(database: Any, count: int, when: datetime) -> None:
    await database.execute("SELECT usage_make_month($1::date)", when.date())
    await database.execute(
        """
        INSERT INTO usage (request_id, key_id, model, task, route, stream, status, outcome, prompt_tokens, cached_tokens,
            completion_tokens, estimated, duration_ms, started_at)
        SELECT 'r' || i, 'k', E'odd \\\\ name\\twith tab', 'generate', '/v1', TRUE, 200, 'completed', i, 0, 1, FALSE, 1.5, $2
        FROM generate_series(1, $1::integer) i
        """,
        count,
        when,
    )


async def contents(database: Any) -> dict[str, Any]:
    """Every row of what a backup holds, but for the traces of the restore itself."""
    found: dict[str, Any] = {}
    names = await database.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p') AND NOT relispartition"
    )
    ours = {"schema_migrations", "deployment_jobs", "outbox", "idempotency_keys", "sessions", "login_failures"}
    moving = {"audit", "event_log", "webhook_state", "webhook_deliveries", "webhook_attempts", "announced_states"}
    for name in sorted({row["relname"] for row in names} - ours - moving):
        found[name] = sorted(row["line"] for row in await database.fetch(f"SELECT t::text AS line FROM {name} t"))
    return found


async def test_what_was_backed_up_comes_back_whole_and_the_gateway_hears_of_it(
    backed: Any, database: Any, nc: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    client = backed.client
    key = (await client.post("/admin/keys", json={"name": "kept"})).json()
    model = (await client.post("/admin/models", json={**MODEL, "hf_token": "hf_secret_token"})).json()
    hook = {"name": "h", "url": "http://127.0.0.1:9/x", "events": ["model.>"]}
    assert (await client.post("/admin/webhooks", json=hook)).status_code == 201
    await put_usage(database, 5000, datetime(2021, 3, 4, tzinfo=UTC))
    buckets = nc.jetstream()
    keys = await buckets.key_value("keys")
    await eventually(lambda: _stored(keys, key["id"]), 20)
    before = await contents(database)
    job = await export(backed, eventually, folder="nightly")
    assert job["status"] == "succeeded", job
    assert job["result"]["rows"] > 5000
    folder = tmp_path / "exports" / "nightly"
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    for line in sums:
        digest, _, path = line.partition("  ")
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    everything = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    )
    for secret in (b"hf_secret_token", key["key"].encode(), backed.settings.secret_key.get_secret_value().encode()):
        assert secret not in everything, "secrets stay sealed or are digests"
    assert oct(folder.stat().st_mode)[-3:] == "700"

    # Everything changes afterwards.
    assert (await client.delete(f"/admin/models/{model['id']}")).status_code == 204
    assert (await client.delete(f"/admin/keys/{key['id']}")).status_code == 204
    later = (await client.post("/admin/keys", json={"name": "later"})).json()
    await eventually(lambda: _stored(keys, later["id"]), 20)
    await database.execute("DELETE FROM usage")

    job = await restore(backed, eventually, "nightly")
    assert job["status"] == "succeeded", job
    after = await contents(database)
    # Readers of KV have seen later versions of what was deleted: the relay may have raised one.
    for name in before:
        if name not in ("models", "api_keys", "model_revisions"):
            assert after[name] == before[name], name
    assert [one["name"] for one in (await client.get("/admin/keys")).json()["items"]] == ["kept"]
    assert [one["id"] for one in (await client.get("/admin/models")).json()["items"]] == [model["id"]]
    await eventually(lambda: _stored(keys, key["id"]), 20)
    await eventually(lambda: _gone(keys, later["id"]), 20)
    safety = job["result"]["safety_backup"]
    listed = (await client.get("/admin/deployment/database-dump")).json()["items"]
    assert {one["folder"] for one in listed} == {"nightly", safety}
    actions = [one["action"] for one in (await client.get("/admin/audit")).json()["items"]]
    assert "database.restore" in actions
    # Numbers are not given twice, and work goes on.
    assert (await client.post("/admin/keys", json={"name": "new"})).status_code == 201


async def _stored(bucket: Any, key: str) -> bool:
    return key in await _keys(bucket)


async def _gone(bucket: Any, key: str) -> bool:
    return key not in await _keys(bucket)


async def _keys(bucket: Any) -> list[str]:
    try:
        return list(await bucket.keys())
    except NoKeysError:
        return []


async def test_models_come_back_stopped_unless_asked_otherwise(
    backed: Any, database: Any, eventually: Callable[..., Any]
) -> None:
    model = (await backed.client.post("/admin/models", json=MODEL)).json()
    await backed.client.post(f"/admin/models/{model['id']}/start")
    assert (await export(backed, eventually, folder="running"))["status"] == "succeeded"
    refused = await backed.client.post(
        "/admin/deployment/restore-database", json={"folder": "running", "confirm": "running"}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "models_running")
    listed = (await backed.client.get("/admin/deployment/database-dump?folder=running")).json()["items"][0]
    assert (listed["restorable"], listed["problems"][0]["code"]) == (False, "models_running")
    await backed.client.post(f"/admin/models/{model['id']}/stop")
    assert (await restore(backed, eventually, "running", backup_first=False))["status"] == "succeeded"
    assert (await backed.client.get(f"/admin/models/{model['id']}")).json()["desired_state"] == "stopped"
    revisions = (await backed.client.get(f"/admin/models/{model['id']}/revisions")).json()["items"]
    assert revisions[0]["action"] == "model.stop"
    assert (await restore(backed, eventually, "running", backup_first=False, start=True))["status"] == "succeeded"
    assert (await backed.client.get(f"/admin/models/{model['id']}")).json()["desired_state"] == "running"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("export", {"folder": "../up"}, 422, "invalid_request"),
        ("export", {"folder": "/etc"}, 422, "invalid_request"),
        ("export", {"folder": ".hidden"}, 422, "invalid_request"),
        ("export", {"folder": ""}, 422, "invalid_request"),
        ("export", {"folder": "a\n"}, 422, "invalid_request"),
        ("export", {"folder": "x" * 101}, 422, "invalid_request"),
        ("export", {"include": []}, 422, "invalid_request"),
        ("export", {"include": ["images"]}, 422, "invalid_request"),
        ("export", {"output_dir": "/srv"}, 422, "invalid_request"),
        ("export", [], 422, "invalid_request"),
        ("estimate-size", {"include": "database"}, 422, "invalid_request"),
        ("restore-database", {"folder": "nothing", "confirm": "nothing"}, 404, "backup_not_found"),
        ("restore-database", {"folder": "../x", "confirm": "../x"}, 422, "invalid_request"),
        ("restore-database", {"folder": "nothing"}, 422, "invalid_request"),
        ("restore-database", {"folder": "link", "confirm": "link"}, 404, "backup_not_found"),
        ("restore-database", {"folder": "broken", "confirm": "broken"}, 422, "damaged_backup"),
        ("restore-database", {"folder": "foreign", "confirm": "foreign"}, 422, "damaged_backup"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_queues_nothing(
    backed: Any, database: Any, tmp_path: Path, path: str, body: Any, status: int, code: str
) -> None:
    exports = tmp_path / "exports"
    (exports / "broken").mkdir(parents=True)
    (exports / "broken" / "manifest.json").write_text("{")
    (exports / "foreign").mkdir()
    (exports / "foreign" / "manifest.json").write_text('{"format": "tar"}')
    (exports / "link").symlink_to(exports / "broken")
    answer = await backed.client.post(f"/admin/deployment/{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert await database.fetchval("SELECT count(*) FROM deployment_jobs") == 0
    assert await database.fetchval("SELECT count(*) FROM audit WHERE action LIKE 'deployment%'") == 0


async def test_without_an_export_folder_everything_says_so(registry: Any) -> None:
    options = (await registry.client.get("/admin/deployment/options")).json()
    assert (options["export_dir"], options["problem"]) == (None, "CORTEX_EXPORT_DIR is not set")
    assert (await registry.client.get("/admin/deployment/database-dump")).json() == {"items": []}
    refused = await registry.client.post("/admin/deployment/export", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "export_dir_unset")


async def test_a_taken_name_an_unconfirmed_restore_and_a_job_that_is_over_are_refused(
    backed: Any, eventually: Callable[..., Any]
) -> None:
    job = await export(backed, eventually, folder="once")
    again = await backed.client.post("/admin/deployment/export", json={"folder": "once"})
    assert (again.status_code, again.json()["code"]) == (409, "folder_taken")
    unsure = {"folder": "once", "confirm": "yes"}
    refused = await backed.client.post("/admin/deployment/restore-database", json=unsure)
    assert (refused.status_code, refused.json()["code"]) == (422, "not_confirmed")
    over = await backed.client.delete(f"/admin/deployment/jobs/{job['id']}")
    assert (over.status_code, over.json()["code"]) == (409, "job_over")
    unknown = await backed.client.delete("/admin/deployment/jobs/01995c3e-7a00-7000-8000-000000000001")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")
    for number in range(3):
        assert (await export(backed, eventually, include=["settings"], folder=f"s{number}"))["status"] == "succeeded"
    first = (await backed.client.get("/admin/deployment/jobs?limit=3")).json()
    rest = (await backed.client.get(f"/admin/deployment/jobs?limit=3&after={first['next']}")).json()
    assert [one["folder"] for one in first["items"] + rest["items"]] == ["s2", "s1", "s0", "once"]
    assert rest["next"] is None
    headers = {"Idempotency-Key": "one-backup"}
    twice = [
        (await backed.client.post("/admin/deployment/export", json={}, headers=headers)).json()["id"] for _ in range(2)
    ]
    assert twice[0] == twice[1]


@pytest.mark.parametrize("harm", ["row", "missing", "short", "table"])
async def test_a_damaged_backup_changes_nothing(
    backed: Any, database: Any, tmp_path: Path, eventually: Callable[..., Any], harm: str
) -> None:
    await backed.client.post("/admin/keys", json={"name": "kept"})
    assert (await export(backed, eventually, folder="nightly"))["status"] == "succeeded"
    folder = tmp_path / "exports" / "nightly"
    file = folder / "database" / "api_keys.copy.gz"
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(one for one in manifest["files"] if one["path"] == "database/api_keys.copy.gz")
    if harm == "missing":
        file.unlink()
    elif harm == "table":
        manifest["database"]["tables"].pop()
    else:
        content = gzip.decompress(file.read_bytes())
        spoilt = gzip.compress(content * 2 if harm == "row" else content[: len(content) // 2])
        file.write_bytes(spoilt)
        entry |= {"bytes": len(spoilt), "sha256": hashlib.sha256(spoilt).hexdigest()}  # even with the right sums
    (folder / "manifest.json").write_text(json.dumps(manifest))
    later = (await backed.client.post("/admin/keys", json={"name": "later"})).json()
    before = await contents(database)
    job = await restore(backed, eventually, "nightly", backup_first=False)
    assert (job["status"], job["error"]["code"]) == ("failed", "damaged_backup"), job
    assert job["error"]["fix"]
    assert await contents(database) == before
    assert later["id"] in {one["id"] for one in (await backed.client.get("/admin/keys")).json()["items"]}


async def test_a_backup_of_another_key_or_schema_is_refused_with_what_to_do(
    backed: Any, start_registry: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    assert (await export(backed, eventually, folder="nightly"))["status"] == "succeeded"
    path = tmp_path / "exports" / "nightly" / "manifest.json"
    good = json.loads(path.read_text())
    body = {"folder": "nightly", "confirm": "nightly", "backup_first": False}
    for change, code in (
        ({"migrations": {"1": "x"}}, "other_schema"),
        ({"key_fingerprints": ["another"]}, "other_secret_key"),
    ):
        path.write_text(json.dumps({**good, "database": {**good["database"], **change}}))
        refused = await backed.client.post("/admin/deployment/restore-database", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, code)
        assert refused.json()["problems"][0]["fix"]
    accepted = await restore(backed, eventually, "nightly", backup_first=False, other_secret_key=True)
    assert accepted["status"] == "succeeded"
    path.write_text(json.dumps(good))
    new_key = Fernet.generate_key().decode()
    old = (backed.settings.secret_key,)
    async with start_registry(export_dir=tmp_path / "exports", secret_key=new_key, secret_keys_old=old) as other:
        await other.ready()
        listed = (await other.client.get("/admin/deployment/database-dump?folder=nightly")).json()["items"][0]
        assert listed["restorable"], listed


async def test_a_cancelled_job_leaves_nothing(
    backed: Any, database: Any, tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(self: Any, table: Any, write: Any) -> int:
        await write(b"x" * 100)
        await asyncio.sleep(3600)
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(PostgresSnapshot, "copy", slow)
        asked = (await backed.client.post("/admin/deployment/export", json={"folder": "slow"})).json()
        path = f"/admin/deployment/jobs/{asked['id']}"

        async def copying() -> bool:
            return "table" in (await backed.client.get(path)).json()["step"]

        await eventually(copying)
        waiting = (await backed.client.post("/admin/deployment/export", json={"folder": "next"})).json()
        twin = await backed.client.post("/admin/deployment/export", json={"folder": "slow"})
        assert (twin.status_code, twin.json()["code"]) == (409, "folder_taken")
        gone = (await backed.client.delete(f"/admin/deployment/jobs/{waiting['id']}")).json()
        assert gone["status"] == "cancelled", "it had not begun"
        assert (await backed.client.delete(path)).status_code == 202
        assert (await ended(backed, asked, eventually))["status"] == "cancelled"
    assert list((tmp_path / "exports").iterdir()) == []
    assert (await export(backed, eventually, folder="slow"))["status"] == "succeeded"


async def test_a_restore_that_is_cancelled_or_killed_is_rolled_back(
    backed: Any, database: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await backed.client.post("/admin/keys", json={"name": "kept"})
    assert (await export(backed, eventually, folder="nightly"))["status"] == "succeeded"
    await backed.client.post("/admin/keys", json={"name": "later"})
    before = await contents(database)
    original = PostgresDumps._afterwards
    reached = asyncio.Event()

    async def stuck(self: Any, connection: Any, job: Any) -> None:
        reached.set()  # every row is copied, nothing is committed
        await asyncio.sleep(3600)
        await original(self, connection, job)

    with monkeypatch.context() as patched:
        patched.setattr(PostgresDumps, "_afterwards", stuck)
        body = {"folder": "nightly", "confirm": "nightly", "backup_first": False}
        asked = (await backed.client.post("/admin/deployment/restore-database", json=body)).json()
        async with asyncio.timeout(20):
            await reached.wait()
        assert (await backed.client.delete(f"/admin/deployment/jobs/{asked['id']}")).status_code == 202
        assert (await ended(backed, asked, eventually))["status"] == "cancelled"
        assert await contents(database) == before
        reached.clear()
        asked = (await backed.client.post("/admin/deployment/restore-database", json=body)).json()
        async with asyncio.timeout(20):
            await reached.wait()
        # The database server cuts the connection, as it does when the registry's host dies.
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cortex-registry-restore'"
        )
        patched.setattr(PostgresDumps, "_afterwards", original)
        await backed.client.delete(f"/admin/deployment/jobs/{asked['id']}")
        assert (await ended(backed, asked, eventually))["status"] in ("failed", "cancelled")
    assert await contents(database) == before


async def test_the_job_of_a_dead_registry_is_taken_over_and_it_may_write_no_more(
    backed: Any, database: Any, start_registry: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    assert (await export(backed, eventually, folder="first"))["status"] == "succeeded"
    await backed.kill()
    for kind, folder in (("export", "second"), ("restore", "first")):
        await database.execute(
            """
            INSERT INTO deployment_jobs (id, kind, status, folder, options, attempts, instance, heartbeat_at, actor)
            VALUES (gen_random_uuid(), $1, 'running', $2, '{}', 1, 'dead', now() - interval '1 hour', 'ada')
            """,
            kind,
            folder,
        )
        async with start_registry(export_dir=tmp_path / "exports", backup_poll_s=0.1) as other:
            await other.ready()
            row = await database.fetchrow("SELECT id FROM deployment_jobs WHERE instance = 'dead' OR attempts = 2")
            job = await ended(other, {"id": str(row["id"])}, eventually)
        if kind == "export":
            assert (job["status"], job["attempts"]) == ("succeeded", 2)
            await database.execute("DELETE FROM deployment_jobs WHERE attempts = 2")
        else:
            assert (job["status"], job["error"]["code"]) == ("failed", "registry_lost")


async def test_a_registry_that_stops_gives_its_export_back(
    backed: Any, database: Any, tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(self: Any, manifest: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Staging, "publish", slow)
    asked = (await backed.client.post("/admin/deployment/export", json={"folder": "slow"})).json()

    async def last_step() -> bool:
        return "place" in (await backed.client.get(f"/admin/deployment/jobs/{asked['id']}")).json()["step"]

    await eventually(last_step)
    await backed.kill()
    row = await database.fetchrow("SELECT status, instance FROM deployment_jobs")
    assert (row["status"], row["instance"]) == ("queued", None)
    assert list((tmp_path / "exports").iterdir()) == []


async def test_model_files_are_taken_whole_and_nothing_from_elsewhere(
    backed: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    models = tmp_path / "models"
    (models / "big").mkdir()
    for number in (1, 2):
        (models / "big" / f"w-{number:05}-of-00002.gguf").write_bytes(bytes([number]) * 3_000_000)
    (tmp_path / "secret").write_text("elsewhere")
    (models / "linked.gguf").symlink_to(tmp_path / "secret")
    for name, path in (("a", "big/w-00001-of-00002.gguf"), ("b", "linked.gguf")):
        made = await backed.client.post("/admin/models", json={**MODEL, "name": name, "local_path": path})
        assert made.status_code == 201, made.text
    body = {"include": ["models", "model_files"]}
    sizes = (await backed.client.post("/admin/deployment/estimate-size", json=body)).json()
    assert (sizes["parts"]["model_files"], sizes["fits"]) == (6_000_000, True)
    job = await export(backed, eventually, folder="files", **body)
    assert job["status"] == "succeeded", job
    assert job["result"]["missing_files"] == ["linked.gguf"]
    taken = sorted(path.name for path in (tmp_path / "exports" / "files" / "model_files").rglob("*.gguf"))
    assert taken == ["w-00001-of-00002.gguf", "w-00002-of-00002.gguf"]
    listed = (await backed.client.get("/admin/deployment/model-manifests?folder=files")).json()["items"][0]
    assert (listed["models"], listed["model_files"]) == (["a", "b"], True)
    imported = await backed.client.post(
        "/admin/models-import", params={"dry_run": True, "conflict": "rename"}, json=listed["file"]
    )
    assert imported.status_code == 200, imported.text


async def test_a_disk_that_cannot_be_written_fails_the_job_with_a_way_out(
    backed: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/exports/x")

    monkeypatch.setattr(Staging, "_place", full)
    job = await export(backed, eventually, folder="full")
    assert (job["status"], job["error"]["code"]) == ("failed", "export_dir_failed")
    assert "No space left" in job["error"]["message"]
    assert job["error"]["fix"]

    async def none(self: Any) -> int:
        return 0

    monkeypatch.setattr(ExportRoot, "free_bytes", none)
    job = await export(backed, eventually, folder="fuller")
    assert job["error"]["code"] == "not_enough_space"


async def test_two_registries_make_each_backup_once(
    backed: Any, start_registry: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    async with start_registry(export_dir=tmp_path / "exports", backup_poll_s=0.05) as other:
        await other.ready()
        asked = [
            (await one.client.post("/admin/deployment/export", json={"folder": f"b{number}"})).json()
            for number, one in enumerate([backed, other] * 3)
        ]
        jobs = [await ended(backed, job, eventually) for job in asked]
    assert {(job["status"], job["attempts"]) for job in jobs} == {("succeeded", 1)}
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == [f"b{number}" for number in range(6)]


async def test_a_dump_is_of_one_moment(
    backed: Any, database: Any, migrated_dsn: str, tmp_path: Path, eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await backed.client.post("/admin/keys", json={"name": "first"})
    original = PostgresSnapshot.copy

    async def meddled(self: Any, table: Any, write: Any) -> int:
        other = await asyncpg.connect(migrated_dsn)
        await other.execute("UPDATE api_keys SET name = name || 'x'")
        await other.close()
        return await original(self, table, write)

    monkeypatch.setattr(PostgresSnapshot, "copy", meddled)
    assert (await export(backed, eventually, folder="moment"))["status"] == "succeeded"
    dumped = gzip.decompress((tmp_path / "exports" / "moment" / "database" / "api_keys.copy.gz").read_bytes()).decode()
    assert "\tfirst\t" in dumped
