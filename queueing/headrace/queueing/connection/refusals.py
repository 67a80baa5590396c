"""Temporary refusals: error replies of a server that is up but won't work for now; all others are mistakes."""

from __future__ import annotations

import re
import time
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)


class ServerRefuses(ResponseError):
    """An error reply that passes, and for which redis-py has no class: NOREPLICAS, BUSY, MISCONF."""

    def __repr__(self) -> str:
        """Return the server's words, which Celery logs like this; redis-py leaves them out."""
        return f"{type(self).__name__}({str(self)!r})"


#: First word of an error reply that passes → its class here and what it means, for a person who reads one line.
_MEANINGS: Final[dict[str, tuple[type[RedisError], str]]] = {
    "READONLY": (ReadOnlyError, "it is a replica, as after a failover"),
    "UNBLOCKED": (ServerRefuses, "it became a replica, as in a failover"),
    "NOREPLICAS": (ServerRefuses, "it has fewer replicas than min-replicas-to-write asks for"),
    "BUSY": (ServerRefuses, "it runs a script that doesn't end; SCRIPT KILL ends it"),
    "MISCONF": (ServerRefuses, "it can't save to its disk; look into its log"),
    "OOM": (OutOfMemoryError, "its memory is full"),
    "LOADING": (BusyLoadingError, "it is still loading its data"),
    "MASTERDOWN": (MasterDownError, "it is a replica that has lost its master"),
    "CLUSTERDOWN": (ClusterDownError, "its cluster is down"),
    "TRYAGAIN": (TryAgainError, "its cluster is moving these keys"),
    "NOPERM": (NoPermissionError, "its ACL forbids this user what headrace needs; see docs/security.md"),
    "NOAUTH": (AuthenticationError, "it asks for a password"),
    "WRONGPASS": (AuthenticationError, "user or password is wrong"),
}

#: Error replies that pass and are no ConnectionError of redis-py, which count as outages anyway.
REFUSALS: Final = (
    ServerRefuses,
    OutOfMemoryError,
    ReadOnlyError,
    NoPermissionError,
    TryAgainError,
    ClusterDownError,
)

#: Those after which the connection is of no use: the address may lead to another server by now.
LEAVES: Final = (ServerRefuses, ReadOnlyError, TryAgainError, ClusterDownError)

#: Address of a server → the last refusal by it, and when (monotonic); taken away when it has taken a write.
_latest: Final[dict[str, tuple[RedisError, float]]] = {}

#: The first word, or the word that Redis 6 puts into the error of a script, or Redis 7 into that of a transaction.
_WORD: Final = re.compile(rf"(?:^|-|because of: ?)({'|'.join(_MEANINGS)})\b")

#: How Valkey and Redis 6 say NOPERM where an ACL allows a script, but not one of its commands.
_NO_PERMISSION: Final = re.compile("ACL failure in script|The user executing the script can't ")


def classified(exc: ResponseError) -> RedisError:
    """Return an error reply as its proper class; the same object where redis-py has chosen it already."""
    if isinstance(exc, REFUSALS):
        return exc
    if _NO_PERMISSION.search(str(exc)):
        return NoPermissionError(str(exc))
    found = _WORD.search(str(exc))
    return exc if found is None else _MEANINGS[found[1]][0](str(exc))


def note_refusal(address: str, exc: RedisError) -> None:
    """Remember that a server refused something just now."""
    _latest[address] = (exc, time.monotonic())


def latest_refusal(address: str) -> tuple[RedisError, float] | None:
    """Return the last refusal by a server, and how many seconds ago it was; None if it has taken a write since."""
    found = _latest.get(address)
    return None if found is None else (found[0], time.monotonic() - found[1])


def forget_refusals(address: str) -> None:
    """Take note that a server takes writes."""
    _latest.pop(address, None)


def meaning(exc: BaseException) -> str | None:
    """Return the meaning of a temporary refusal; None for all other errors."""
    if isinstance(exc, ServerRefuses):
        found = _WORD.search(str(exc))
        return _MEANINGS[found[1]][1] if found else None
    for kind, text in _MEANINGS.values():
        if kind is not ServerRefuses and type(exc) is kind:
            return _meaning_of_login(exc) if kind is AuthenticationError else text
    return None


def _meaning_of_login(exc: BaseException) -> str:
    asked = "required" in str(exc).lower()
    return _MEANINGS["NOAUTH" if asked else "WRONGPASS"][1]
