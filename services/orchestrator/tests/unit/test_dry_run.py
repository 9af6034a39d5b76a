"""What would run for a model, without running it."""

from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.documents import ExternalEndpoint, ModelDocumentV1
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import EstimateResultV1
from cortex_contracts.operations import DryRunRequestV1, PlacementV1
from cortex_kit.errors import DomainError
from cortex_orchestrator.domain.engines import Engine
from cortex_orchestrator.domain.spec import Capabilities, Mount, Program, ReplicaKey
from cortex_orchestrator.handlers.dry_run import DryRuns, masked
from cortex_orchestrator.handlers.specs import NodeProfile, build_spec
from cortex_orchestrator.ports import OnProgress, Sight

PROFILE = NodeProfile(NodeId("node-1"), "/models", mounts=(Mount("/srv/models", "/models"),))
PLACEMENT = PlacementV1(fits=None, reason="nobody has estimated the model yet", gpus=(1,))


class Catalog:
    """Never fetches: `find` is not to be called."""

    def __init__(self, sight: Sight | DomainError) -> None:
        self.sight = sight

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        raise AssertionError("a dry run must not fetch anything")

    async def look(self, engine: Engine, image: str | None) -> Sight:
        if isinstance(self.sight, DomainError):
            raise self.sight
        return self.sight


class Placer:
    def __init__(self) -> None:
        self.asked: list[tuple[ModelId, EstimateResultV1 | None]] = []

    def judge(self, model: ModelDocumentV1, estimate: EstimateResultV1 | None) -> PlacementV1:
        self.asked.append((model.id, estimate))
        return PLACEMENT


def model(**changes: Any) -> ModelDocumentV1:
    fields: dict[str, Any] = {
        "id": "m1",
        "name": "M",
        "served_model_name": "served",
        "engine_type": EngineType.LLAMACPP,
        "local_path": "m.gguf",
        "aggregateversion": 1,
    }
    return ModelDocumentV1.model_validate({**fields, **changes})


def dry_runs(sight: Sight | DomainError) -> DryRuns:
    return DryRuns(Catalog(sight), PROFILE, Placer())


HERE = Sight(Program("img:1", version="sha256:1"))


async def test_it_shows_exactly_what_a_start_would_make() -> None:
    result = await dry_runs(HERE).run(DryRunRequestV1(model=model()))
    spec = build_spec(ReplicaKey(model(), 0), HERE.program, PROFILE, (1,))
    assert result.spec_hash == spec.hash
    assert [word for word in result.argv if not word.startswith("<")] == [
        word for word in spec.command.argv if not word.startswith("{")
    ]
    assert result.argv[result.argv.index("--host") :][:2] == ("--host", "<host>")
    assert (result.node, result.image, result.placement) == ("node-1", "img:1", PLACEMENT)
    assert result.warnings == ()


async def test_the_entrypoint_of_vllm_is_part_of_it() -> None:
    document = model(engine_type="vllm", local_path=None, repo_id="org/name")
    result = await dry_runs(HERE).run(DryRunRequestV1(model=document))
    assert result.argv[:3] == ("vllm", "serve", "org/name")


async def test_no_secret_is_shown() -> None:
    document = model(
        engine_type="vllm",
        local_path=None,
        repo_id="org/name",
        hf_token_sealed="sealed-secret",
        extra_env={"MY_TOKEN": "abc", "OTHER": "hf_abcdef", "PROXY": "http://u:p@proxy", "NCCL_DEBUG": "INFO"},
    )
    result = await dry_runs(HERE).run(DryRunRequestV1(model=document))
    assert result.env["VLLM_API_KEY"] == result.env["HF_TOKEN"] == "***"
    assert result.env["MY_TOKEN"] == result.env["OTHER"] == result.env["PROXY"] == "***"
    assert result.env["NCCL_DEBUG"] == "INFO"
    text = result.model_dump_json()
    for secret in ("sealed-secret", "abc", "u:p"):
        assert secret not in text


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "X_API_KEY", "KEY", "APIKEY"])
def test_a_variable_with_a_secret_name_is_masked(name: str) -> None:
    assert masked({name: "value"}) == {name: "***"}


@pytest.mark.parametrize("name", ["KEYBOARD", "NCCL_P2P_DISABLE", "OMP_NUM_THREADS", "MONKEY"])
def test_a_variable_with_a_plain_name_is_shown(name: str) -> None:
    assert masked({name: "value"}) == {name: "value"}


async def test_an_image_that_is_not_here_is_told_and_not_pulled() -> None:
    result = await dry_runs(Sight(Program("far/away:1"), present=False)).run(DryRunRequestV1(model=model()))
    assert result.image == "far/away:1"
    assert "far/away:1 is not on this node" in result.warnings[-1]


async def test_what_the_build_lacks_is_among_the_warnings() -> None:
    flags = frozenset(
        ["--model", "--alias", "--host", "--port", "--ctx-size", "--batch-size", "--flash-attn", "--metrics"]
    )
    sight = Sight(Program("img:1", Capabilities(flags)))
    result = await dry_runs(sight).run(DryRunRequestV1(model=model(llamacpp={"numa_policy": "isolate"})))
    assert any("numa_policy" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("document", "sight", "code"),
    [
        (model(local_path=None), HERE, "model_path_missing"),
        (model(local_path="../x"), HERE, "path_outside_models_root"),
        (model(extra_args=["--host", "0.0.0.0"]), HERE, "denied_argument"),
        (model(), DomainError("engine_missing", "none here"), "engine_missing"),
        (model(external=[ExternalEndpoint(url="http://10.0.0.1:8000")]), HERE, "external_model"),
    ],
)
async def test_what_cannot_run_is_an_error_with_a_code(
    document: ModelDocumentV1, sight: Sight | DomainError, code: str
) -> None:
    with pytest.raises(DomainError) as caught:
        await dry_runs(sight).run(DryRunRequestV1(model=document))
    assert caught.value.code == code
