"""Keys derived from, and secrets sealed with, CORTEX_SECRET_KEY."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from cortex_kit.errors import PermanentError


def _derive(secret_key: SecretStr, purpose: bytes, message: bytes = b"") -> bytes:
    key = secret_key.get_secret_value().encode()
    return hmac.new(key, b"cortex/" + purpose + b"\x00" + message, hashlib.sha256).digest()


def engine_api_key(secret_key: SecretStr, replica_id: str, spec_hash: str) -> str:
    """The engine's own API key. Orchestrator, gateway and health derive it alike, so it is never stored or sent."""
    return _derive(secret_key, b"engine", f"{replica_id}\x00{spec_hash}".encode()).hex()


def key_fingerprint(secret_key: SecretStr) -> str:
    """Tells one secret key from another and gives nothing of it away: part of what an engine is made of."""
    return _derive(secret_key, b"fingerprint").hex()[:12]


def sign_in_proof(secret_key: SecretStr, statement: str) -> str:
    """What only whoever has the key can write under a statement about who may sign in."""
    return base64.urlsafe_b64encode(_derive(secret_key, b"sign-in", statement.encode())).decode().rstrip("=")


def seal(secret_key: SecretStr, plaintext: str) -> str:
    """Encrypt and authenticate a secret at rest (Fernet: AES-128-CBC and HMAC-SHA256)."""
    return _fernet(secret_key).encrypt(plaintext.encode()).decode()


def unseal(secret_key: SecretStr, sealed: str, old: Sequence[SecretStr] = ()) -> str:
    """Inverse of `seal`. `old` are keys that were in use before and may still open something.

    Raises:
        PermanentError: sealed with yet another key, or tampered with.
    """
    try:
        return MultiFernet([_fernet(key) for key in (secret_key, *old)]).decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise PermanentError("a sealed secret does not open with this CORTEX_SECRET_KEY") from error


def reseal(secret_key: SecretStr, sealed: str, old: Sequence[SecretStr] = ()) -> str:
    """The same secret sealed with the present key; `sealed` itself when it is so already.

    Raises:
        PermanentError: as `unseal`.
    """
    try:
        _fernet(secret_key).decrypt(sealed.encode())
    except InvalidToken:
        return seal(secret_key, unseal(secret_key, sealed, old))
    return sealed


def _fernet(secret_key: SecretStr) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_derive(secret_key, b"seal")))
