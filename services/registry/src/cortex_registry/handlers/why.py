"""Why a model is in its state: load what is known, put it together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.model import Model
from cortex_registry.domain.why import Asked, History, Present, Why, build_why, decisive
from cortex_registry.handlers.observation import Observation

MAX_REVISIONS = 30


class ModelHistory(Protocol):
    """Every method raises DatabaseUnavailableError when Postgres does not answer."""

    async def revisions(self, model_id: str, *, since_version: int | None, limit: int) -> Sequence[Asked]:
        """Newest first."""
        ...

    async def chain(
        self, model_id: str, asked: Asked, until: Asked | None, limit: int
    ) -> tuple[Sequence[LoggedEvent], int]:
        """Events that belong to a change, in the order of the log, and how many of their middle are missing.

        Those that name no request count when they happened before the next change.
        """
        ...


class Models(Protocol):
    """Finds models."""

    async def find(self, reference: str) -> Model | None: ...


class WhyService:
    """Answers why."""

    def __init__(self, models: Models, observation: Observation, history: ModelHistory, clock: Clock) -> None:
        self._models = models
        self._observation = observation
        self._history = history
        self._clock = clock

    async def why(self, reference: str, *, version: int | None, limit: int) -> Why:
        """The chain of the present state, or of one version.

        Raises:
            DomainError: 404 `model_not_found`, `revision_not_found`.
        """
        model = await self._models.find(reference)
        if model is None:
            message = f"There is no model {reference!r}. List them with GET /admin/models."
            raise DomainError("model_not_found", message, status=404)
        revisions = await self._history.revisions(model.id, since_version=version, limit=MAX_REVISIONS)
        asked = _exactly(revisions, version) if version is not None else decisive(revisions)
        if asked is None and version is not None:
            message = f"{reference} has no version {version}, or more than {MAX_REVISIONS} came after it."
            raise DomainError("revision_not_found", message, status=404)
        history = History(None, (), ())
        if asked is not None:
            later = [one for one in revisions if one.version > asked.version]
            until = later[-1] if later else None
            events, omitted = await self._history.chain(model.id, asked, until, limit)
            history = History(asked, tuple(reversed(later)), events, omitted)
        past = version is not None and bool(history.later)
        return build_why(self._present(model), history, now=self._clock.now(), past=past)

    def _present(self, model: Model) -> Present:
        observed = self._observation.observe(model)
        state = observed.state
        present = Present(
            model.document.served_model_name,
            state.state if state is not None else None,
            observed.reason,
            state.since if state is not None else None,
        )
        broken = [status.replica.diagnosis for status in observed.replicas if status.replica.diagnosis is not None]
        return replace(present, diagnosis=broken[0]) if broken else present


def _exactly(revisions: Sequence[Asked], version: int) -> Asked | None:
    return next((one for one in revisions if one.version == version), None)
