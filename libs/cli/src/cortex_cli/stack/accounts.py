"""Under which account Postgres runs: PostgreSQL refuses to run as root."""

import os
import pwd
from pathlib import Path

from cortex_cli.stack.launch import Account

_NAMES = ("postgres", "nobody")
_NUMERIC = 65534


def for_postgres(data: Path) -> Account | None:
    """None for an ordinary user (Postgres runs as that user).

    As root: the owner of existing data, else the account `postgres`, else `nobody`, else a bare number.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = data.stat()
    except FileNotFoundError:
        return _unprivileged()
    return Account(owner.st_uid, owner.st_gid) if owner.st_uid != 0 else _unprivileged()


def may_enter(path: Path, account: Account) -> bool:
    """Whether the account can read `path` through all its parents, by owner and mode bits alone."""
    resolved = path.resolve()
    return all(_has(folder, account, 0o1) for folder in resolved.parents) and _has(resolved, account, 0o5)


def _unprivileged() -> Account:
    for name in _NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    return Account(_NUMERIC, _NUMERIC)


def _has(path: Path, account: Account, bits: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return (status.st_mode >> shift) & bits == bits
