"""Durable requests as a relay uses them: find those due, those the broker should hold, and those that have ended.

For one thread; each method is one short transaction, so it works through pgbouncer in transaction mode too.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import psycopg

from headrace.contracts.compact import expand
from headrace.results_store.database.address import connect
from headrace.results_store.database.bounded import ANSWER_S
from headrace.results_store.database.errors import driver_errors_translated
from headrace.results_store.durable.block import CHANNEL

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

#: A relay that doesn't renew its place is followed by another after this time.
LEASE_S: Final = 10.0

#: Most blocks, and about the most bytes of messages, that are sent in one transaction.
DUE_BLOCKS: Final = 256
DUE_BYTES: Final = 16 << 20

#: A block whose queue is full is tried again after this time.
FULL_S: Final = 1.0

#: Blocks read at once when sent ones are gone through.
PAGE_BLOCKS: Final = 200

_FIRST: Final = uuid.UUID(int=0)

_ENTER: Final = "INSERT INTO headrace_relays (prefix) VALUES (%s) ON CONFLICT DO NOTHING"
_LEAD: Final = (
    "UPDATE headrace_relays SET holder = %s, until = now() + %s * interval '1 second'"
    " WHERE prefix = %s AND (holder = %s OR until < now()) RETURNING server"
)
_LEAVE: Final = "UPDATE headrace_relays SET until = '-infinity' WHERE prefix = %s AND holder = %s"
_REMEMBER: Final = "UPDATE headrace_relays SET server = %s WHERE prefix = %s"

_DUE: Final = (
    "SELECT id, pg_column_size(messages) FROM headrace_requests WHERE due_at <= now() AND prefix = %s"
    " ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
_BLOCKS: Final = (
    "SELECT id, queue, priority, sent, keys, names, messages, template FROM headrace_requests WHERE id = ANY(%s)"
    " ORDER BY due_at, id"
)
_ENDED: Final = "SELECT id FROM predictions WHERE id = ANY(%s)"
_DONE: Final = "UPDATE headrace_requests SET sent = cardinality(keys), due_at = NULL WHERE id = ANY(%s)"
_PARTLY: Final = "UPDATE headrace_requests SET sent = %s, due_at = now() + %s * interval '1 second' WHERE id = %s"

_SENT: Final = (
    "SELECT id, queue, priority, sent, keys, names FROM headrace_requests"
    " WHERE id > %s AND prefix = %s AND due_at IS NULL ORDER BY id LIMIT %s"
)

#: Removes the blocks of a page of which all requests have ended; gives the last id and the size of the page.
_TIDY: Final = """
WITH page AS MATERIALIZED (
    SELECT id, keys, due_at FROM headrace_requests WHERE id > %s AND prefix = %s ORDER BY id LIMIT %s
), gone AS (
    DELETE FROM headrace_requests r USING page p WHERE r.id = p.id AND r.due_at IS NULL AND p.due_at IS NULL
    AND NOT EXISTS (
        SELECT FROM unnest(p.keys) k WHERE NOT EXISTS (SELECT FROM predictions WHERE predictions.id = k)
    )
)
SELECT id, (SELECT count(*) FROM page) FROM page ORDER BY id DESC LIMIT 1
"""


class SentBlock(msgspec.Struct, kw_only=True):
    """A block as a relay reads it. sent: how many of its requests were, from the first. messages: () if not read."""

    id: uuid.UUID
    queue: str
    priority: int
    sent: int
    keys: list[uuid.UUID]
    names: list[str] | None
    messages: Sequence[bytes] = ()

    @property
    def ids(self) -> list[str]:
        """The ids as they were submitted."""
        return self.names if self.names is not None else list(map(str, self.keys))


#: Sends messages to a queue at a priority, in order; gives how many were accepted, from the first.
Send: TypeAlias = Callable[[str, int, Sequence[bytes]], int]


class RelayStore:
    """Reads and marks durable requests of one key prefix. Methods raise StoreUnavailable and ConfigurationError."""

    def __init__(self, database_url: str, prefix: str, holder: str, timeout_s: float = ANSWER_S) -> None:
        """holder: names this relay among others. timeout_s: silence for so long is a lost server.

        Nothing is connected yet.
        """
        self._database_url = database_url
        self._prefix = prefix
        self._holder = holder
        self._timeout_s = timeout_s
        self._connection: Connection | None = None

    def lead(self) -> str | None:
        """Try to become or stay the one relay of this prefix for LEASE_S; return what was remembered.

        None if another is the one.
        """
        with self._connected() as connection:
            arguments = (self._holder, LEASE_S, self._prefix, self._holder)
            row = connection.execute(_LEAD, arguments).fetchone()
            if row is None and connection.execute(_ENTER, (self._prefix,)).rowcount:
                row = connection.execute(_LEAD, arguments).fetchone()
            if row is not None:
                connection.execute(f"LISTEN {CHANNEL}")
        return None if row is None else str(row[0])

    def leave(self) -> None:
        """Let another relay take over at once."""
        with self._connected() as connection:
            connection.execute(_LEAVE, (self._prefix, self._holder))

    def remember(self, identity: str) -> None:
        """Take note of a broker that is known to hold all that was sent and has not ended."""
        with self._connected() as connection:
            connection.execute(_REMEMBER, (identity, self._prefix))

    def send_due(self, send: Send) -> int:
        """Send what is due and commit; return how many blocks were looked at.

        Requests that have ended, by a cancel that is, are not sent. If it fails on the way, what it sent is sent again.
        """
        with self._connected() as connection, connection.transaction():
            found = connection.execute(_DUE, (self._prefix, DUE_BLOCKS)).fetchall()
            chosen = _within(found, DUE_BYTES)
            if not chosen:
                return 0
            blocks = [_block(row) for row in connection.execute(_BLOCKS, (chosen,))]
            ended = self._ended(connection, [key for block in blocks for key in block.keys[block.sent :]])
            done = []
            for block, sent in _send_all(blocks, ended, send):
                if sent == len(block.keys):
                    done.append(block.id)
                else:
                    connection.execute(_PARTLY, (sent, FULL_S, block.id))
            connection.execute(_DONE, (done,))
        return len(chosen)

    def sent_after(self, last: uuid.UUID = _FIRST) -> list[SentBlock]:
        """Return the next blocks that were sent, without messages, of which some requests may have ended."""
        with self._connected() as connection:
            return [_block(row) for row in connection.execute(_SENT, (last, self._prefix, PAGE_BLOCKS))]

    def ended(self, keys: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Return which requests have a row in `predictions`."""
        with self._connected() as connection:
            return self._ended(connection, list(keys))

    def read(self, block_ids: Collection[uuid.UUID]) -> Iterator[SentBlock]:
        """Yield blocks with their messages, one after the other."""
        for block_id in block_ids:
            with self._connected() as connection:
                row = connection.execute(_BLOCKS, ([block_id],)).fetchone()
            if row is not None:
                yield _block(row)

    def tidy(self, after: uuid.UUID = _FIRST) -> uuid.UUID:
        """Remove the blocks of the next page that have ended as a whole; return where to go on."""
        with self._connected() as connection:
            row = connection.execute(_TIDY, (after, self._prefix, PAGE_BLOCKS)).fetchone()
        return _FIRST if row is None or row[1] < PAGE_BLOCKS else row[0]

    def fileno(self) -> int | None:
        """Return a descriptor, readable after an application has committed; None without a connection."""
        connection = self._connection
        return None if connection is None or connection.closed else connection.fileno()

    def take_news(self) -> bool:
        """Return whether an application has committed since the last call.

        Also what came with the answer of a query, which leaves `fileno` unreadable.
        """
        with self._connected() as connection:
            return bool(list(connection.notifies(timeout=0)))

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @staticmethod
    def _ended(connection: Connection, keys: list[uuid.UUID]) -> set[uuid.UUID]:
        return {key for (key,) in connection.execute(_ENDED, (keys,))}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with driver_errors_translated():
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._database_url, self._timeout_s)
            try:
                yield self._connection
            except psycopg.Error:
                self.close()
                raise


def _within(found: Sequence[tuple[uuid.UUID, int]], most_bytes: int) -> list[uuid.UUID]:
    """Return the first blocks up to a size in all, but at least one."""
    chosen: list[uuid.UUID] = []
    size = 0
    for block_id, octets in found:
        size += octets
        if chosen and size > most_bytes:
            break
        chosen.append(block_id)
    return chosen


def _block(row: Sequence[Any]) -> SentBlock:
    names = ("id", "queue", "priority", "sent", "keys", "names", "messages")
    block = SentBlock(**dict(zip(names, row[: len(names)], strict=False)))
    template = row[len(names)] if len(row) > len(names) else None
    if template is not None:
        block.messages = expand(template, block.ids, block.messages)
    return block


def _send_all(blocks: Sequence[SentBlock], ended: Collection[uuid.UUID], send: Send) -> Iterator[tuple[SentBlock, int]]:
    """Send the rest of each block, those of one queue and priority together; yield how much of each is settled."""
    groups: dict[tuple[str, int], list[SentBlock]] = {}
    for block in blocks:
        groups.setdefault((block.queue, block.priority), []).append(block)
    for (queue, priority), group in groups.items():
        wanted = [
            (block, at) for block in group for at in range(block.sent, len(block.keys)) if block.keys[at] not in ended
        ]
        accepted = send(queue, priority, [block.messages[at] for block, at in wanted]) if wanted else 0
        refused = {block.id: at for block, at in reversed(wanted[accepted:])}
        for block in group:
            yield block, refused.get(block.id, len(block.keys))
