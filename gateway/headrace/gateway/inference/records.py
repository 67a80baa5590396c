"""Notes on asynchronous requests that have no row yet, so that any gateway process knows them by their id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import redis.asyncio

from headrace.contracts.message import Reply
from headrace.producers.replies.store_lookup import kept_answers_async
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.keys import keys_of

#: Seconds after which a note disappears that nobody took away, as when its gateway was killed. A request that waits for
#: longer is unknown from then on until it has a row.
_TTL_S: Final = 86_400


class Record(msgspec.Struct, frozen=True):
    """A note on a request without a row. submitted_at: seconds since 1970. lost: whether the broker lost it."""

    model: str
    version: str
    submitted_at: float
    lost: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


class Records:
    """Writes and reads notes on requests. Methods raise BrokerUnavailable."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        """client: the owner closes it."""
        self._client = client

    async def write(self, records: Mapping[str, Record]) -> None:
        """Note requests. records: by the ids of the requests."""
        with broker_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for request_id, record in records.items():
                    pipe.set(keys_of(self._client).gateway_request(request_id), _encode(record), ex=_TTL_S)
                await pipe.execute()

    async def answer(self, request_id: str) -> Reply | None:
        """Return the reply to a request that ended without a row, since Postgres took none; None for others."""
        found = await kept_answers_async(self._client, [request_id])
        return found[0] if found else None

    async def read(self, request_id: str) -> Record | None:
        """Return the note on a request, None if there is none."""
        with broker_errors():
            found = await self._client.get(keys_of(self._client).gateway_request(request_id))
        try:
            return _decode(found) if isinstance(found, bytes) else None
        except msgspec.DecodeError:
            return None  # of another version of headrace

    async def remove(self, request_id: str) -> None:
        """Remove the note on a request that has a row."""
        with broker_errors():
            await self._client.delete(keys_of(self._client).gateway_request(request_id))
