"""Blocks of durable requests: one row of `headrace_requests` each, and the INSERT for it."""

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

from headrace.contracts.compact import compact
from headrace.contracts.ids import is_uuid, new_uuid, row_id
from headrace.results_store.writing.exchange import Parameters

#: Most requests, and about the most bytes of messages, in one row: a row is read and sent as a whole.
BLOCK_REQUESTS: Final = 1024
BLOCK_BYTES: Final = 8 << 20

#: Wakes relays when a transaction of an application commits.
CHANNEL: Final = "headrace_requests"

#: Seconds after which a relay sends what the client that inserted it should have sent; it died, most likely.
CLIENT_SENDS_S: Final = 5.0

_UUID_OID: Final = 2950
_UUIDS_OID: Final = 2951
_BYTEA_OID: Final = 17
_BYTEAS_OID: Final = 1001
_TEXT_OID: Final = 25
_TEXTS_OID: Final = 1009
_INT2_OID: Final = 21
_array_header = struct.Struct(">iiIii").pack
_length = struct.Struct(">i").pack


class DurableBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for one queue and priority. prefix: of the keys in Redis. ids: as submitted; messages: as sent.

    names: the ids, unless each of them can be read off its key. compacted: template and bodies, if they are known.
    """

    id: uuid.UUID
    prefix: str
    queue: str
    priority: int
    ids: Sequence[str]
    names: Sequence[str] | None
    messages: Sequence[bytes]
    compacted: tuple[bytes, Sequence[bytes]] | None = None

    @property
    def keys(self) -> list[bytes]:
        """The keys of their rows in `predictions`."""
        if self.names is None:
            return [bytes.fromhex(each.replace("-", "")) for each in self.ids]
        return [row_id(each).bytes for each in self.ids]

    def packed(self) -> tuple[bytes | None, Sequence[bytes]]:
        """Return the template and the bodies that make up the messages, or None and the messages."""
        if len(self.ids) == 1 or self.names is not None:
            return None, self.messages
        return self.compacted or compact(self.ids, self.messages) or (None, self.messages)


def blocks_of(
    prefix: str,
    queue: str,
    priority: int,
    ids: Sequence[str],
    messages: Sequence[bytes],
    compacted: tuple[bytes, Sequence[bytes]] | None = None,
) -> Iterator[DurableBlock]:
    """Yield requests in blocks, in order. compacted: template and bodies of the messages, if they are known."""
    start = size = 0
    for at, message in enumerate(chain(messages, (b"",))):
        full = at - start == BLOCK_REQUESTS or size + len(message) > BLOCK_BYTES
        if at > start and (full or at == len(messages)):
            some = list(ids[start:at])
            yield DurableBlock(
                id=new_uuid(),
                prefix=prefix,
                queue=queue,
                priority=priority,
                ids=some,
                names=None if all(map(is_uuid, some)) else some,
                messages=messages[start:at],
                compacted=None if compacted is None else (compacted[0], compacted[1][start:at]),
            )
            start, size = at, 0
        size += len(message)


def array_of(oid: int, elements: Sequence[bytes]) -> bytes:
    """Return a value in Postgres's binary form of an array; psycopg's own takes a microsecond an element."""
    body = b"".join(chain.from_iterable(zip(map(_length, map(len, elements)), elements, strict=True)))
    return _array_header(1, 0, oid, len(elements), 1) + body


class _Encoded(msgspec.Struct, frozen=True):
    """An array that is encoded already."""

    data: bytes


class _Uuids(_Encoded, frozen=True): ...


class _Byteas(_Encoded, frozen=True): ...


class _EncodedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Encoded) -> bytes:
        return obj.data


class _UuidsDumper(_EncodedDumper):
    oid = _UUIDS_OID


class _ByteasDumper(_EncodedDumper):
    oid = _BYTEAS_OID


_COLUMNS: Final = "id, prefix, queue, priority, keys, names, template, messages, due_at"

#: The client sends what it inserted; should it die before, a relay does.
INSERT_FOR_CLIENT: Final = (
    f"INSERT INTO headrace_requests ({_COLUMNS})"  # noqa: S608
    f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + interval '{CLIENT_SENDS_S} seconds')"
).encode()

#: In one round trip: the row, and word of it to the relay when the transaction commits.
INSERT_FOR_RELAY: Final = (
    f"WITH new AS (INSERT INTO headrace_requests ({_COLUMNS}) VALUES (%b, %s, %s, %s, %b, %s, %b, %b, now()))"  # noqa: S608
    f" SELECT pg_notify('{CHANNEL}', '')"
)


def prepare(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Teach a connection of an application to send what `parameters` gives."""
    connection.adapters.register_dumper(_Uuids, _UuidsDumper)
    connection.adapters.register_dumper(_Byteas, _ByteasDumper)


def parameters(block: DurableBlock) -> tuple[Any, ...]:
    """Return the parameters of `INSERT_FOR_RELAY`, for a prepared connection."""
    keys = _Uuids(array_of(_UUID_OID, block.keys))
    template, bodies = block.packed()
    messages = _Byteas(array_of(_BYTEA_OID, bodies))
    return block.id, block.prefix, block.queue, block.priority, keys, block.names, template, messages


def encoded_parameters(block: DurableBlock) -> Parameters:
    """Return the parameters of `INSERT_FOR_CLIENT`."""
    names = block.names
    template, bodies = block.packed()
    written = None if names is None else array_of(_TEXT_OID, [name.encode() for name in names])
    return (
        Parameters()
        .add(block.id.bytes, _UUID_OID, binary=True)
        .add(block.prefix.encode(), _TEXT_OID)
        .add(block.queue.encode(), _TEXT_OID)
        .add(str(block.priority).encode(), _INT2_OID)
        .add(array_of(_UUID_OID, block.keys), _UUIDS_OID, binary=True)
        .add(written, _TEXTS_OID, binary=True)
        .add(template, _BYTEA_OID, binary=True)
        .add(array_of(_BYTEA_OID, bodies), _BYTEAS_OID, binary=True)
    )
