"""Changing CORTEX_SECRET_KEY: what was sealed stays readable, is sealed anew in one go, and reaches the bucket."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from nats.js.errors import KeyNotFoundError
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1
from cortex_kit.errors import PermanentError
from cortex_kit.secrets import seal, unseal
from cortex_registry.adapters.reseal import reseal_all

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OLD, NEW = SecretStr("the-key-of-before-0123456789abcdef"), SecretStr("the-present-key-0123456789abcdefghi")


async def sealed_values(database: Any) -> list[str]:
    row = await database.fetchrow("SELECT hf_token_sealed, external FROM models WHERE hf_token_sealed IS NOT NULL")
    other = await database.fetchval("SELECT external FROM models WHERE external <> '[]'")
    revisions = await database.fetch("SELECT document FROM model_revisions")
    found = [row["hf_token_sealed"], json.loads(other)[0]["api_key_sealed"]]
    for revision in map(json.loads, (row["document"] for row in revisions)):
        found += [revision["hf_token_sealed"]] if revision["hf_token_sealed"] else []
        found += [one["api_key_sealed"] for one in revision["external"]]
    found += [row["answer_sealed"] for row in await database.fetch("SELECT answer_sealed FROM idempotency_keys")]
    found += [row["secret_sealed"] for row in await database.fetch("SELECT secret_sealed FROM webhooks")]
    return found


async def fill(client: Any) -> None:
    model = {"name": "m", "repo_id": "a/b", "hf_token": "hf_secret"}
    answer = await client.post("/admin/models", json=model, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.text
    body = {"served_model_name": "x", "endpoints": [{"url": "http://a:1", "api_key": "their-key"}]}
    assert (await client.post("/admin/upstreams", json=body)).status_code == 201


async def test_secrets_are_sealed_anew_in_one_go_and_only_once(
    start_registry: Any, migrated_dsn: str, database: Any, nc: Any, eventually: Any
) -> None:
    dsn = SecretStr(migrated_dsn)
    async with start_registry(secret_key=OLD.get_secret_value()) as registry:
        await registry.ready()
        await fill(registry.client)
    await database.execute(
        "INSERT INTO webhooks (id, name, url, events, secret_sealed, created_by) "
        "VALUES (gen_random_uuid(), 'w', 'http://x', '{}', $1, 'a')",
        seal(OLD, "webhook-secret"),
    )
    waiting = await reseal_all(dsn, NEW, [OLD], only_check=True)
    assert waiting["models.hf_token_sealed"] == waiting["models.external"] == waiting["webhooks.secret_sealed"] == 1
    assert waiting["model_revisions.document"] == 2
    assert waiting["idempotency_keys.answer_sealed"] == 1
    with pytest.raises(PermanentError, match="opens with none of the keys"):
        await reseal_all(dsn, NEW, [], only_check=False)
    for value in await sealed_values(database):
        assert unseal(OLD, value)
    assert await reseal_all(dsn, NEW, [OLD], only_check=False) == waiting
    values = await sealed_values(database)
    assert len(values) == 6
    for value in values:
        assert unseal(NEW, value)
    assert await reseal_all(dsn, NEW, [OLD], only_check=False) == {}

    async with start_registry(secret_key=NEW.get_secret_value()) as registry:
        await registry.ready()
        model = (await registry.client.get("/admin/models/m")).json()
        assert (model["version"], model["has_hf_token"]) == (2, True)
        bucket = await nc.jetstream().key_value("models")

        async def published() -> bool:
            try:
                document = ModelDocumentV1.model_validate_json((await bucket.get(model["id"])).value)
            except KeyNotFoundError:  # the first registry was stopped before it published
                return False
            return document.aggregateversion == 2 and unseal(NEW, document.hf_token_sealed or "") == "hf_secret"

        await eventually(published, 30)
        repeated = await registry.client.post(
            "/admin/models",
            json={"name": "m", "repo_id": "a/b", "hf_token": "hf_secret"},
            headers={"Idempotency-Key": "k"},
        )
        assert (repeated.status_code, repeated.headers["idempotent-replayed"]) == (201, "true")


async def test_an_answer_that_no_key_opens_is_dropped_and_holds_nothing_up(
    registry: Any, migrated_dsn: str, database: Any, secret_key: str
) -> None:
    await registry.client.post("/admin/keys", json={"name": "a"}, headers={"Idempotency-Key": "k"})
    assert await reseal_all(SecretStr(migrated_dsn), NEW, [OLD], only_check=False) == {}
    assert await database.fetchval("SELECT count(*) FROM idempotency_keys") == 0


def test_the_command_says_what_it_did(migrated_dsn: str) -> None:
    environment = os.environ | {
        "CORTEX_REGISTRY_DATABASE_URL": migrated_dsn,
        "CORTEX_SECRET_KEY": NEW.get_secret_value(),
        "CORTEX_SECRET_KEYS_OLD": OLD.get_secret_value(),
    }
    command = [sys.executable, "-m", "cortex_registry", "reseal"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "0 secrets were sealed with the present key\n"), done.stderr
