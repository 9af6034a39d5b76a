"""What an engine lists, and the specification of a replica."""

from collections.abc import Callable

import pytest

from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import (
    ContainerSpec,
    Mount,
    Program,
    ReplicaKey,
)
from cortex_orchestrator.handlers.specs import NodeProfile, build_spec

HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding (default: unused)
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
"""
ARGPARSE = """usage: vllm serve [model_tag] [options]

ModelConfig:
  Configuration for the model.

  --enforce-eager, --no-enforce-eager
                        Whether to always use eager-mode PyTorch. Use
                        --enforce-eager for debugging.
  --quantization QUANTIZATION, -q QUANTIZATION
                        Method used to quantize the weights.
  --kv-cache-dtype {auto,fp8}
                        - auto: the model's
"""


def test_help_lists_accepted_options_and_not_removed_ones() -> None:
    listed = parse_help(HELP)
    flags = listed.flags
    assert {"-h", "--help", "--usage", "-m", "--model", "-nkvo", "--no-kv-offload", "-md", "--no-ui"} <= flags
    assert not {"--draft", "--draft-max", "-", "--spec-ngram-mod-n-max"} & flags
    assert {"--help", "-nkvo", "--no-ui"} <= listed.switches
    assert not {"--model", "-c", "-md"} & listed.switches


def test_help_of_argparse_is_read_the_same_way() -> None:
    listed = parse_help(ARGPARSE)
    assert listed.flags == {"--enforce-eager", "--no-enforce-eager", "--quantization", "-q", "--kv-cache-dtype"}
    assert listed.switches == {"--enforce-eager", "--no-enforce-eager"}


def model(task: Task = Task.GENERATE, **options: object) -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId("m1"),
        name="M",
        served_model_name="served",
        engine_type=EngineType.LLAMACPP,
        local_path="folder/model.gguf",
        llamacpp=LlamaCppOptions.model_validate(options),
        task=task,
        aggregateversion=1,
    )


PROFILE = NodeProfile(NodeId("n"), "/models", mounts=(Mount("/srv/models", "/models"),))


def spec(**changes: object) -> ContainerSpec:
    return build_spec(ReplicaKey(model().model_copy(update=changes), 0), Program("image:1"), PROFILE)


def test_the_hash_is_stable_and_ignores_what_does_not_reach_the_engine() -> None:
    assert spec().hash == spec().hash
    unimportant = {"name": "other", "stop_timeout_s": 99, "hf_token_sealed": "x", "replicas": 3, "aggregateversion": 7}
    assert spec(**unimportant).hash == spec().hash


@pytest.mark.parametrize(
    "changes",
    [
        {"restart_generation": 1},
        {"served_model_name": "other"},
        {"extra_env": {"A": "b"}},
        {"placement": (1,)},
        {"local_path": "b.gguf"},
        {"llamacpp": LlamaCppOptions(ngl=0)},
    ],
)
def test_the_hash_changes_with_what_the_engine_is(changes: dict[str, object]) -> None:
    assert spec(**changes).hash != spec().hash


def test_the_program_is_part_of_the_hash_and_the_name_follows_the_model() -> None:
    other = build_spec(ReplicaKey(model(), 0), Program("image:2"), PROFILE)
    assert other.hash != spec().hash
    assert other.name == "llamacpp-model-m1-0"
    assert other.labels(2)["cortex.restarts"] == "2"


def test_every_engine_type_has_an_engine(make_spec: Callable[..., ContainerSpec]) -> None:
    assert set(ENGINES) == set(EngineType)
