"""A client's access to the result store, opened on first use; optional, as a client may have no database."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import redis
import redis.asyncio

from headrace.contracts.message import Reply, decode_replies
from headrace.contracts.settings import Settings
from headrace.producers.replies.pending import Waiting
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.keys import keys_of

if TYPE_CHECKING:
    from headrace.results_store import Prediction, StoreReader
    from headrace.results_store.durable.request_store import RequestStore

#: Most ids in one query of the store.
READ_IDS: Final = 1000


class RowLookup:
    """Reads the rows of requests; usable from several threads and after a fork."""

    def __init__(self, settings: Settings) -> None:
        """settings: without a database URL, `replies` finds nothing and all else raises ConfigurationError."""
        self._settings = settings
        self._lock = threading.Lock()
        self._reader: StoreReader | None = None
        self._requests: RequestStore | None = None

    def renew(self) -> None:
        """Start afresh in a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def get(self, request_id: str) -> Prediction | None:
        """Read one row. Raises ConfigurationError, StoreUnavailable."""
        return self._open().get(request_id)

    def cancel(self, request_id: str, model: str) -> bool:
        """Insert the row of a cancelled request; False when it had ended. Raises like `get`."""
        return self._open().cancel(request_id, model)

    def replies(self, request_ids: Sequence[str]) -> list[Reply]:
        """Return replies for those requests that have a row; none without a database. Raises like `get` otherwise."""
        if self._settings.database_url is None:
            return []
        return [row.as_reply(key) for key, row in self._open().get_many(request_ids).items()]

    def whereabouts(self, handles: Collection[Waiting]) -> tuple[list[Reply], set[str]]:
        """Return replies for those requests that have a row, and the ids of all that the store has or keeps.

        Raises like `replies`.
        """
        ids, replies = [handle.id for handle in handles], list[Reply]()
        for at in range(0, len(ids), READ_IDS):
            replies += self.replies(ids[at : at + READ_IDS])
        known = {reply.id for reply in replies}
        kept = {handle.standing.kept for handle in handles if handle.standing.kept is not None}
        if kept:
            there = self.requests().kept(kept)
            known.update(handle.id for handle in handles if handle.standing.kept in there)
        return replies, known

    def requests(self) -> RequestStore:
        """Return the way to durable requests. Raises ConfigurationError without a database."""
        with self._lock:
            if self._requests is None:
                from headrace.results_store.durable.request_store import RequestStore

                self._requests = RequestStore(self._settings.require_database_url(), self._settings.database_timeout_s)
            return self._requests

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            if self._requests is not None:
                self._requests.close()

    def _open(self) -> StoreReader:
        with self._lock:
            if self._reader is None:
                # Imported here: SQLAlchemy takes longer to import than all else, and most processes never read rows.
                from headrace.results_store import StoreReader

                self._reader = StoreReader(
                    self._settings.require_database_url(), timeout_s=self._settings.database_timeout_s
                )
            return self._reader


def kept_answers(client: redis.Redis, request_ids: Sequence[str]) -> list[Reply]:
    """Return the replies to those requests that ended without a row, since Postgres took none.

    A worker keeps such a reply under a key, as it may be lost with a connection and no row makes up for it. Raises
    BrokerUnavailable.
    """
    if not request_ids:
        return []
    keys = keys_of(client)
    with broker_errors():
        return _read_answers(client.mget([keys.answer(each) for each in request_ids]))  # type: ignore[arg-type]


async def kept_answers_async(client: redis.asyncio.Redis, request_ids: Sequence[str]) -> list[Reply]:
    """Return replies to requests without rows; see `kept_answers`."""
    if not request_ids:
        return []
    keys = keys_of(client)
    with broker_errors():
        return _read_answers(await client.mget([keys.answer(each) for each in request_ids]))  # type: ignore[arg-type]


def _read_answers(values: Iterable[bytes | None]) -> list[Reply]:
    return [reply for value in values if value is not None for reply in decode_replies(value)]


def without(request_ids: Iterable[str], replies: Iterable[Reply]) -> list[str]:
    """Return the ids that are not answered by these replies."""
    answered = {reply.id for reply in replies}
    return [each for each in request_ids if each not in answered]
