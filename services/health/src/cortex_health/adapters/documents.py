"""The port `Documents` on three KV views, and the keys of engines that follow from them."""

from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.external import endpoint_of, external_replicas
from cortex_kit.errors import PermanentError
from cortex_kit.kv import KVView
from cortex_kit.logging import get_logger
from cortex_kit.secrets import engine_api_key, unseal

log = get_logger()


class ViewedDocuments:
    """Reads what the views hold; never waits. Endpoints of others appear as replicas."""

    def __init__(
        self,
        replicas: KVView[ReplicaDocumentV1],
        verdicts: KVView[VerdictDocumentV1],
        models: KVView[ModelDocumentV1],
    ) -> None:
        self._replicas = replicas
        self._verdicts = verdicts
        self._models = models

    def replicas(self) -> Mapping[str, ReplicaDocumentV1]:
        """Every replica, by id."""
        external = {
            replica.id: replica
            for model in self._models.items.values()
            if model.external
            for replica in external_replicas(model)
        }
        return {**self._replicas.items, **external} if external else self._replicas.items

    def verdicts(self) -> Mapping[str, VerdictDocumentV1]:
        """Every stored verdict, by replica id."""
        return self._verdicts.items

    def model(self, model_id: ModelId) -> ModelDocumentV1 | None:
        """The model, if there is one."""
        return self._models.items.get(model_id)

    def model_name(self, model_id: ModelId) -> str | None:
        """The name it is served under."""
        model = self.model(model_id)
        return model.served_model_name if model is not None else None

    def synced(self) -> bool:
        """True once all were read; stays true while NATS is away."""
        return self._replicas.synced and self._verdicts.synced and self._models.synced


class EngineKeys:
    """The key that an engine asks for: derived for ours, unsealed for those of others."""

    def __init__(
        self,
        secret_key: SecretStr,
        old: Sequence[SecretStr] = (),
        models: Mapping[str, ModelDocumentV1] | KVView[ModelDocumentV1] | None = None,
    ) -> None:
        self._secret_key = secret_key
        self._old = tuple(old)
        self._models = models

    def of(self, replica: ReplicaDocumentV1) -> str | None:
        """None: it asks for none, or we cannot read it."""
        models = self._models.items if isinstance(self._models, KVView) else self._models or {}
        endpoint = endpoint_of(models.get(replica.model_id), replica.id)
        if endpoint is None:
            return engine_api_key(self._secret_key, replica.id, replica.spec_hash)
        if endpoint.api_key_sealed is None:
            return None
        try:
            return unseal(self._secret_key, endpoint.api_key_sealed, self._old)
        except PermanentError as error:
            log.warning("endpoint_key_unreadable", replica_id=replica.id, error=str(error))
            return None
