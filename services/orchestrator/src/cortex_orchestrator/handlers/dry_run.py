"""What would run for a model: the same specification that a start would make, without starting anything."""

import re
from collections.abc import Mapping

from cortex_contracts.operations import DryRunRequestV1, DryRunResultV1
from cortex_kit.errors import DomainError
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.domain.spec import HOST, PORT, ContainerSpec, ReplicaKey, SpecError
from cortex_orchestrator.handlers.specs import NodeProfile, build_spec
from cortex_orchestrator.ports import EngineCatalog, Placer, Sight

MASK = "***"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE|AUTH|(^|_)KEY($|_)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(hf_|sk-|ghp_|Bearer )|://[^/@\s]*:[^/@\s]*@")
_LISTENING = {HOST: "<host>", PORT: "<port>"}


class DryRuns:
    """Answers for one node."""

    def __init__(self, catalog: EngineCatalog, profile: NodeProfile, placer: Placer) -> None:
        self._catalog = catalog
        self._profile = profile
        self._placer = placer

    async def run(self, request: DryRunRequestV1) -> DryRunResultV1:
        """The command line, environment and placement of the model's first replica.

        Raises:
            DomainError: it cannot be served as it is described, or there is no engine for it; `code` says which.
            TransientError: the container engine is away.
        """
        model = request.model
        if model.external:
            raise DomainError("external_model", "Others run this model: there is nothing to start.", status=409)
        sight = await self._catalog.look(ENGINES[model.engine_type], model.engine_image)
        placement = self._placer.judge(model, request.estimate)
        try:
            spec = build_spec(ReplicaKey(model, 0), sight.program, self._profile, placement.gpus)
        except SpecError as error:
            raise DomainError(error.code, error.message, status=422) from error
        return DryRunResultV1(
            node=self._profile.node,
            image=sight.program.reference,
            argv=_argv(spec),
            env=_environment(spec, has_token=model.hf_token_sealed is not None),
            spec_hash=spec.hash,
            placement=placement,
            warnings=(*spec.command.warnings, *_warnings(sight)),
        )


def _argv(spec: ContainerSpec) -> tuple[str, ...]:
    words = (*(spec.command.entrypoint or ()), *spec.command.argv)
    return tuple(_LISTENING.get(word, word) for word in words)


def _environment(spec: ContainerSpec, *, has_token: bool) -> dict[str, str]:
    secrets = {spec.command.api_key_env: MASK} | ({"HF_TOKEN": MASK} if has_token else {})
    return masked(spec.command.env) | secrets


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables, without the values that are secret by their name or look."""
    return {
        name: MASK if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) else value
        for name, value in environment.items()
    }


def _warnings(sight: Sight) -> tuple[str, ...]:
    if sight.present:
        return ()
    return (f"{sight.program.reference} is not on this node: it would be pulled first, and its options are not known.",)
