"""Which images of a host belong to engines."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cortex_contracts.base import NodeId
from cortex_contracts.enums import EngineType
from cortex_kit.errors import TransientError
from cortex_orchestrator.domain.images import LocalImage, engine_images
from cortex_orchestrator.handlers.images import Images

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DEFAULTS = {EngineType.LLAMACPP: "ghcr.io/llama:server", EngineType.VLLM: "vllm/vllm-openai"}


def image(*tags: str, digests: tuple[str, ...] = ()) -> LocalImage:
    return LocalImage(f"sha256:{tags}", tags, digests, 7, NOW)


def test_engine_images_are_told_from_others_and_those_that_lack_are_named() -> None:
    local = [
        image("ghcr.io/llama:server", digests=("ghcr.io/llama@sha256:aa",)),
        image("ghcr.io/llama:old"),
        image("postgres:18"),
        image(digests=("reg:5000/own@sha256:bb",)),
    ]
    asked = ("reg:5000/own@sha256:bb", "reg:5000/own:gone", "reg:5000/own:gone")
    found = {one.reference: one for one in engine_images(local, DEFAULTS, asked)}
    assert set(found) == {"ghcr.io/llama:server", "ghcr.io/llama:old", "vllm/vllm-openai", *asked}
    assert (found["ghcr.io/llama:server"].default_of, found["ghcr.io/llama:server"].digest) == ("llamacpp", "sha256:aa")
    assert found["ghcr.io/llama:old"].default_of is None
    assert (found["vllm/vllm-openai"].present, found["vllm/vllm-openai"].default_of) == (False, "vllm")
    assert found["reg:5000/own@sha256:bb"].present
    assert not found["reg:5000/own:gone"].present


def test_a_reference_without_a_tag_means_latest() -> None:
    (found,) = engine_images([image("e:latest")], {EngineType.VLLM: "e"}, ())
    assert (found.reference, found.present, found.default_of) == ("e", True, EngineType.VLLM)


class Silent:
    async def local(self) -> Sequence[LocalImage]:
        raise TransientError("no answer")


async def test_a_node_without_docker_and_one_whose_docker_is_silent_say_why_they_list_nothing() -> None:
    for images, words in ((None, "processes"), (Silent(), "no answer")):
        result = await Images(NodeId("n"), images, DEFAULTS).list(())
        assert (result.images, words in (result.reason or "")) == ((), True)
