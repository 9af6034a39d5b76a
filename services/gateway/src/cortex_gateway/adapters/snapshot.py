"""The projection on disk, so that a gateway that starts while NATS is away serves what it knew.

One line of JSON (what it is, its size, its code) and then the documents of the four buckets as JSON. It holds what KV holds:
digests of keys and what is sealed with CORTEX_SECRET_KEY, nothing in clear; environment and tokens of engines, which a gateway
does not need, are left out. The code is an HMAC under CORTEX_SECRET_KEY: a file that another made, or that was changed, is ignored.
"""

import hashlib
import hmac
import os
import stat
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from pydantic import SecretStr

from cortex_gateway.ports import BucketSnapshot, Snapshot
from cortex_kit.logging import get_logger

log = get_logger()

FORMAT = "cortex-gateway-projection"
VERSION = 1
MAX_BYTES = 512 * 1024 * 1024
MAX_HEAD_BYTES = 4096
_PURPOSE = b"cortex-gateway-projection-v1"


class _Head(msgspec.Struct):
    format: str
    version: int
    saved_at: datetime
    size: int
    code: str


class _Bucket(msgspec.Struct):
    sequence: int
    items: dict[str, msgspec.Raw]


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_body = msgspec.json.Decoder(dict[str, _Bucket]).decode


class SnapshotFile:
    """`ports.SnapshotStore`. Both methods block: call them off the event loop, or before it matters."""

    def __init__(self, path: Path, secret_key: SecretStr, old_keys: Sequence[SecretStr] = ()) -> None:
        self._path = path
        self._keys = [_code_key(key) for key in (secret_key, *old_keys)]

    def save(self, snapshot: Snapshot) -> None:
        buckets = {
            name: _Bucket(bucket.sequence, {key: msgspec.Raw(value) for key, value in bucket.items.items()})
            for name, bucket in snapshot.buckets.items()
        }
        body = msgspec.json.encode(buckets)
        code = _code(self._keys[0], snapshot.saved_at, body)
        head = msgspec.json.encode(_Head(FORMAT, VERSION, snapshot.saved_at, len(body), code))
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(head + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(self._path.parent)

    def load(self) -> Snapshot | None:
        try:
            data = self._read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return self._ignore(str(error))
        line, _, body = data.partition(b"\n")
        try:
            head = _decode_head(line[:MAX_HEAD_BYTES])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._ignore("it is no snapshot of a gateway")
        if head.format != FORMAT or head.version != VERSION:
            return self._ignore(f"its format is {head.format[:64]!r}, version {head.version}")
        if len(body) != head.size or head.saved_at.tzinfo is None:
            return self._ignore("it is incomplete")
        if not any(hmac.compare_digest(_code(key, head.saved_at, body), head.code) for key in self._keys):
            return self._ignore("it was not written with this CORTEX_SECRET_KEY, or has been changed")
        try:
            buckets = _decode_body(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._ignore("its documents cannot be read")
        return Snapshot(
            head.saved_at,
            {
                name: BucketSnapshot(bucket.sequence, {key: bytes(value) for key, value in bucket.items.items()})
                for name, bucket in buckets.items()
            },
        )

    def _read(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            if status.st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            return file.read(MAX_BYTES + 1)

    def _ignore(self, reason: str) -> None:
        log.warning("projection_snapshot_ignored", path=str(self._path), reason=reason)


def _code_key(secret: SecretStr) -> bytes:
    return hmac.digest(secret.get_secret_value().encode(), _PURPOSE, hashlib.sha256)


def _code(key: bytes, saved_at: datetime, body: bytes) -> str:
    code = hmac.new(key, saved_at.isoformat().encode() + b"\n", hashlib.sha256)
    code.update(body)
    return code.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
