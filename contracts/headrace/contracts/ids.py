"""Request ids: UUIDv7 of our own, and the UUIDs that stand for the ids of foreign clients."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from typing import Final

import msgspec

#: Namespace under which a foreign id that is not a UUID becomes a UUIDv5. Never change it: rows are keyed by it.
FOREIGN_NAMESPACE: Final = uuid.UUID("6f1a9d52-5e07-5d0c-9a3e-2f0f6f1c7b11")

_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

#: Foreign ids are kept beside their rows up to this length.
_MAX_FOREIGN_CHARACTERS: Final = 1000

#: Longest id that a request may have; it is kept beside the row, and indexed, when it is not a UUID.
MAX_ID_LENGTH: Final = 255

#: Characters that Postgres text can't hold.
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


def uuid7(unix_ns: int, random: bytes) -> uuid.UUID:
    """Make a UUIDv7 (RFC 9562, section 5.7, method 3: 12 bits of sub-millisecond time).

    unix_ns: nanoseconds since 1970. random: 8 bytes.
    """
    millis, rest = divmod(unix_ns, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    value = millis << 80 | 0x7000 << 64 | fraction << 64
    return uuid.UUID(int=value | 0b10 << 62 | int.from_bytes(random, "big") >> 2)


def row_of_job(job: uuid.UUID, file_no: int, row: int) -> uuid.UUID:
    """Return the key of a row of a bulk job: a UUIDv7 of the job's time, the same whenever the row is scored.

    job: a UUIDv7. row: number of the row in its file.
    """
    digest = hashlib.sha256(job.bytes + file_no.to_bytes(8, "big") + row.to_bytes(8, "big")).digest()
    rest = int.from_bytes(digest[:10], "big")
    value = (job.int >> 80) << 80 | rest
    return uuid.UUID(int=value & ~(0xF000 << 64) & ~(0b11 << 62) | 0x7000 << 64 | 0b10 << 62)


def new_uuid() -> uuid.UUID:
    """Make a fresh UUIDv7."""
    return uuid7(time.time_ns(), os.urandom(8))


def new_id() -> str:
    """Make a fresh request id, ordered by time."""
    return str(new_uuid())


def new_ids(count: int) -> list[str]:
    """Make `count` fresh request ids with one call for time and randomness."""
    now, noise = time.time_ns(), os.urandom(8 * count)
    return [str(uuid7(now, noise[8 * i : 8 * i + 8])) for i in range(count)]


def is_uuid(request_id: str) -> bool:
    """Return whether an id is a UUID in its canonical spelling, and so the key of its own row."""
    return _CANONICAL_UUID(request_id) is not None


def is_storable(text: str) -> bool:
    """Return whether Redis, JSON and Postgres can all hold a text, such as a request id: no NUL, no lone surrogates."""
    # Nearly all ids are ASCII, which is known without looking at each character.
    return "\0" not in text and (text.isascii() or _UNSTORABLE.search(text) is None)


def row_id(request_id: str) -> uuid.UUID:
    """Return the key of a request's row: the id itself if it is a UUID, else a UUIDv5 of it.

    Only the canonical spelling counts as a UUID, so that two different strings never share a row.
    Any string has a row, also one that UTF-8 can't carry.
    """
    if _CANONICAL_UUID(request_id):
        return msgspec.convert(request_id, uuid.UUID)  # a fifth of the time that uuid.UUID(...) takes
    return _row_id_of_text(request_id)


def row_ids(request_id: str) -> tuple[uuid.UUID, str | None]:
    """Return `row_id` and `foreign_id` of a request, in one look at its id."""
    if _CANONICAL_UUID(request_id):
        return msgspec.convert(request_id, uuid.UUID), None
    return _row_id_of_text(request_id), foreign_id(request_id)


def _row_id_of_text(request_id: str) -> uuid.UUID:
    # Given bytes, uuid5 would need Python 3.12; given the text, it fails on lone surrogates, which JSON can carry.
    name = FOREIGN_NAMESPACE.bytes + request_id.encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(name, usedforsecurity=False).digest()
    return uuid.UUID(bytes=digest[:16], version=5)


def foreign_id(request_id: str) -> str | None:
    """Return the id to keep beside a request's row; None where the row's key is the id.

    What Postgres text can't hold (NUL, lone surrogates) becomes U+FFFD, and very long ids are cut.
    """
    if _CANONICAL_UUID(request_id):
        return None
    return _UNSTORABLE.sub("\ufffd", request_id[:_MAX_FOREIGN_CHARACTERS])


def unix_seconds(identity: uuid.UUID) -> float | None:
    """Return the time at which a UUIDv7 was made, in seconds since 1970; None for any other UUID."""
    return (identity.int >> 80) / 1000 if identity.version == 7 else None
