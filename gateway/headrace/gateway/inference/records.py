"""Notes on asynchronous requests that have no row yet, so that any gateway process knows them by their id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
import redis.asyncio

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import Reply, decode_replies
from headrace.producers.transport.connections import broker_errors
from headrace.producers.transport.grouped_calls import GroupedCalls, Parcel
from headrace.queueing.keys import keys_of

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a note disappears that nobody took away, as when its gateway was killed. A request that waits for
#: longer is unknown from then on until it has a row.
_TTL_S: Final = 86_400

#: Most keys of one call.
_KEYS: Final = 1000


class Record(msgspec.Struct, frozen=True):
    """A note on a request without a row. submitted_at: seconds since 1970. lost: whether the broker lost it."""

    model: str
    version: str
    submitted_at: float
    lost: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


class _Grouped(GroupedCalls[T, R]):
    """Calls that many tasks share: each task would take a connection of its own otherwise."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__()
        self.client = client

    def share(self, item: T) -> float:  # noqa: ARG002 — all are of one size
        return 1 / _KEYS

    async def call(self, queue: str, priority: int, parcels: Sequence[Parcel[T, R]]) -> None:  # noqa: ARG002 — all go one way
        try:
            with broker_errors():
                results = await self.run([parcel.item for parcel in parcels])
        except BrokerUnavailable as exc:
            for parcel in parcels:
                parcel.fail(exc)
            return
        for parcel, result in zip(parcels, results, strict=True):
            parcel.settle(result)

    async def do(self, item: T) -> R:
        return await self.submit("", 0, item)

    @abstractmethod
    async def run(self, items: Sequence[T]) -> Sequence[R]: ...


class _Writes(_Grouped[tuple[str, bytes | None], None]):
    """Writes notes, by their keys; None removes one."""

    name = "headrace-gateway-writes"

    async def run(self, items: Sequence[tuple[str, bytes | None]]) -> Sequence[None]:
        async with self.client.pipeline(transaction=False) as pipe:
            for key, note in items:
                if note is None:
                    pipe.delete(key)
                else:
                    pipe.set(key, note, ex=_TTL_S)
            await pipe.execute()
        return [None] * len(items)


class _Reads(_Grouped[str, bytes | None]):
    """Reads strings, by their keys."""

    name = "headrace-gateway-reads"

    async def run(self, items: Sequence[str]) -> Sequence[bytes | None]:
        found: list[Any] = await self.client.mget(items)
        return found


class Records:
    """Writes and reads notes on requests. Methods raise BrokerUnavailable."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        """client: the owner closes it."""
        self._keys = keys_of(client)
        self._writes = _Writes(client)
        self._reads = _Reads(client)

    async def write(self, request_id: str, record: Record) -> None:
        """Note a request."""
        await self._writes.do((self._keys.gateway_request(request_id), _encode(record)))

    async def remove(self, request_id: str) -> None:
        """Remove the note on a request that has a row."""
        await self._writes.do((self._keys.gateway_request(request_id), None))

    async def read(self, request_id: str) -> Record | None:
        """Return the note on a request, None if there is none."""
        found = await self._reads.do(self._keys.gateway_request(request_id))
        try:
            return None if found is None else _decode(found)
        except msgspec.DecodeError:
            return None  # of another version of headrace

    async def answer(self, request_id: str) -> Reply | None:
        """Return the reply to a request that ended without a row, since Postgres took none; None for others."""
        found = await self._reads.do(self._keys.answer(request_id))
        return None if found is None else next(iter(decode_replies(found)), None)

    async def close(self) -> None:
        """Wait for the calls under way."""
        await self._writes.close()
        await self._reads.close()
