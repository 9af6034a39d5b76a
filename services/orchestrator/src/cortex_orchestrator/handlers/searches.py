"""Looking for engines' programs in the background, and what is said of the replicas that wait for one."""

import asyncio
from collections.abc import Callable, Mapping

from cortex_contracts.base import NodeId, ReplicaId
from cortex_contracts.documents import PullProgress, ReplicaDocumentV1
from cortex_contracts.enums import ReplicaState
from cortex_contracts.events import ContainerPullingV1
from cortex_kit.clock import Clock
from cortex_orchestrator.domain.observed import Identity, Observed
from cortex_orchestrator.domain.spec import ReplicaKey
from cortex_orchestrator.handlers.report import Reporter, Standing
from cortex_orchestrator.handlers.specs import ProgramKey, SpecSource, program_key

PULL_REPORT_S = 1.0


class Searches:
    """At most one search a program at a time. A long pull holds up nobody but those who need its image."""

    def __init__(
        self, specs: SpecSource, reporter: Reporter, clock: Clock, node: NodeId, found: Callable[[], None]
    ) -> None:
        self._specs = specs
        self._reporter = reporter
        self._clock = clock
        self._node = node
        self._found = found
        self._searching: set[ProgramKey] = set()
        self._keys: Mapping[ReplicaId, ReplicaKey] = {}
        self._busy: frozenset[ReplicaId] = frozenset()
        self._pull_reports: dict[ProgramKey, float] = {}

    def begin(self, keys: Mapping[ReplicaId, ReplicaKey], busy: frozenset[ReplicaId], group: asyncio.TaskGroup) -> None:
        """Search for every program that the replicas need and nobody is looking for; `busy` ones hear of no progress."""
        self._keys, self._busy = keys, busy
        for program in self._specs.missing(keys, self._clock.now()) - self._searching:
            self._searching.add(program)
            group.create_task(self._search(program))

    def report_waiting(self, keys: Mapping[ReplicaId, ReplicaKey], observed: Mapping[ReplicaId, Observed]) -> None:
        """A replica whose engine is still being looked for has a document too."""
        for replica, key in keys.items():
            waits = program_key(key.model) in self._searching
            if waits and replica not in observed and replica not in self._reporter.documents:
                self._reporter.report(
                    Standing(identity_of_key(key), ReplicaState.STARTING, "looking for the engine's program")
                )

    async def _search(self, key: ProgramKey) -> None:
        try:
            await self._specs.search(key, self._pulled)
        finally:
            self._searching.discard(key)
            self._pull_reports.pop(key, None)
            self._found()

    def _pulled(self, key: ProgramKey, image: str, progress: PullProgress) -> None:
        """Progress of a pull: into the documents of the replicas that wait for it, at most once a second."""
        now = self._clock.monotonic()
        if now - self._pull_reports.get(key, float("-inf")) < PULL_REPORT_S:
            return
        self._pull_reports[key] = now
        for replica in self._keys.values():
            if program_key(replica.model) == key and replica.id not in self._busy:
                self._report_pull(replica, image, progress)

    def _report_pull(self, key: ReplicaKey, image: str, progress: PullProgress) -> None:
        document = self._reporter.documents.get(key.id)
        waits = (ReplicaState.STARTING, ReplicaState.PULLING)
        if document is not None and document.state not in waits and not _tries_again(document, progress):
            return
        identity = identity_of_key(key)
        self._reporter.report(
            Standing(identity, ReplicaState.PULLING, "the engine's image is being pulled", pull=progress)
        )
        event = ContainerPullingV1(
            replica_id=key.id,
            model_id=identity.model_id,
            ordinal=identity.ordinal,
            engine_type=identity.engine_type,
            node=self._node,
            spec_hash=identity.spec_hash,
            image=image,
            current_bytes=progress.current_bytes,
            total_bytes=progress.total_bytes,
        )
        self._reporter.emit(event, key.id, key.model.id)


def _tries_again(document: ReplicaDocumentV1, progress: PullProgress) -> bool:
    """Whether a replica that failed before it had a program now gets one."""
    return document.state is ReplicaState.FAILED and not document.spec_hash and progress.current_bytes > 0


def identity_of_key(key: ReplicaKey) -> Identity:
    """Of a replica without a specification yet."""
    return Identity(key.model.id, key.ordinal, key.model.engine_type, "", stop_timeout_s=key.model.stop_timeout_s)
