"""Requests that are kept together in one row of `headrace_requests`, and how that row is inserted."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from headrace.contracts.ids import foreign_id, new_uuid, row_id

#: Most requests, and about the most bytes of messages, in one row: a row is read and sent as a whole.
BLOCK_REQUESTS: Final = 1024
BLOCK_BYTES: Final = 8 << 20

#: Wakes relays when a transaction of an application commits.
CHANNEL: Final = "headrace_requests"

#: Seconds after which a relay sends what the client that inserted it should have sent; it died, most likely.
CLIENT_SENDS_S: Final = 5.0

_UUID_OID: Final = 2950
_BYTEA_OID: Final = 17
_array_header = struct.Struct(">iiIii").pack
_length = struct.Struct(">i").pack


class DurableBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for one queue and priority. prefix: of the keys in Redis. ids: as submitted; messages: as sent."""

    id: uuid.UUID
    prefix: str
    queue: str
    priority: int
    ids: Sequence[str]
    messages: Sequence[bytes]

    @property
    def keys(self) -> list[uuid.UUID]:
        """The keys of their rows in `predictions`."""
        return [row_id(each) for each in self.ids]

    @property
    def names(self) -> list[str] | None:
        """The ids, unless each of them can be read off its key."""
        return list(self.ids) if any(foreign_id(each) is not None for each in self.ids) else None


def blocks_of(
    prefix: str, queue: str, priority: int, ids: Sequence[str], messages: Sequence[bytes]
) -> Iterator[DurableBlock]:
    """Yield requests in blocks, in order."""
    start = size = 0
    for at, message in enumerate(chain(messages, (b"",))):
        full = at - start == BLOCK_REQUESTS or size + len(message) > BLOCK_BYTES
        if at > start and (full or at == len(messages)):
            yield DurableBlock(
                id=new_uuid(),
                prefix=prefix,
                queue=queue,
                priority=priority,
                ids=ids[start:at],
                messages=messages[start:at],
            )
            start, size = at, 0
        size += len(message)


class _Array(msgspec.Struct, frozen=True):
    """A value in Postgres's binary form of an array; psycopg's own takes a microsecond an element."""

    oid: int
    elements: Sequence[bytes]


class _Uuids(_Array, frozen=True): ...


class _Byteas(_Array, frozen=True): ...


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Array) -> bytes:
        lengths = map(_length, map(len, obj.elements))
        body = b"".join(chain.from_iterable(zip(lengths, obj.elements, strict=True)))
        return _array_header(1, 0, obj.oid, len(obj.elements), 1) + body


class _UuidsDumper(_ArrayDumper):
    oid = 2951


class _ByteasDumper(_ArrayDumper):
    oid = 1001


#: `due`: an SQL expression, when a relay sends.
_INSERT: Final = (
    "INSERT INTO headrace_requests (id, due_at, prefix, queue, priority, keys, names, messages)"
    " VALUES (%b, {due}, %s, %s, %s, %b, %s, %b)"
)
INSERT_FOR_CLIENT: Final = _INSERT.format(due=f"now() + interval '{CLIENT_SENDS_S} seconds'")

#: In one round trip: the row, and word of it to the relay when the transaction commits.
INSERT_FOR_RELAY: Final = f"WITH new AS ({_INSERT.format(due='now()')}) SELECT pg_notify('{CHANNEL}', '')"


def prepare(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Teach a connection, an application's too, to send what `parameters` gives."""
    connection.adapters.register_dumper(_Uuids, _UuidsDumper)
    connection.adapters.register_dumper(_Byteas, _ByteasDumper)


def parameters(block: DurableBlock) -> tuple[Any, ...]:
    """Return the parameters of `INSERT_FOR_CLIENT` and `INSERT_FOR_RELAY`, for a prepared connection."""
    keys = _Uuids(_UUID_OID, [key.bytes for key in block.keys])
    messages = _Byteas(_BYTEA_OID, block.messages)
    return block.id, block.prefix, block.queue, block.priority, keys, block.names, messages
