"""The port `Documents` on two KV views."""

from collections.abc import Mapping

from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_kit.kv import KVView


class ViewedDocuments:
    """Reads what the views hold; never waits."""

    def __init__(self, replicas: KVView[ReplicaDocumentV1], verdicts: KVView[VerdictDocumentV1]) -> None:
        self._replicas = replicas
        self._verdicts = verdicts

    def replicas(self) -> Mapping[str, ReplicaDocumentV1]:
        """Every replica, by id."""
        return self._replicas.items

    def verdicts(self) -> Mapping[str, VerdictDocumentV1]:
        """Every stored verdict, by replica id."""
        return self._verdicts.items

    def synced(self) -> bool:
        """True once both were read; stays true while NATS is away."""
        return self._replicas.synced and self._verdicts.synced
