"""An engine belongs to the secret key that its own key was derived from."""

from dataclasses import replace

from pydantic import SecretStr

from cortex_contracts.base import NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_kit.secrets import key_fingerprint
from cortex_orchestrator.domain.spec import Program, ReplicaKey
from cortex_orchestrator.handlers.specs import NodeProfile, build_spec

OLD, NEW = (key_fingerprint(SecretStr(letter * 32)) for letter in "on")


def test_another_secret_key_makes_another_specification() -> None:
    model = ModelDocumentV1.model_validate(
        {"id": "m", "name": "m", "served_model_name": "m", "engine_type": "llamacpp", "local_path": "m.gguf",
         "llamacpp": {}, "aggregateversion": 1}
    )  # fmt: skip
    profile = NodeProfile(NodeId("n"), "/models", key_fingerprint=OLD)
    key, program = ReplicaKey(model, 0), Program("/usr/bin/llama-server")
    same = build_spec(key, program, profile)
    assert same.hash == build_spec(key, program, profile).hash
    assert same.hash != build_spec(key, program, replace(profile, key_fingerprint=NEW)).hash


def test_a_fingerprint_tells_keys_apart_and_is_short() -> None:
    assert OLD != NEW
    assert len(OLD) == len(NEW) == 12
