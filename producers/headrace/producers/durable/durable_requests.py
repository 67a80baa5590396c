"""Durable requests: rows in Postgres first, then sent to the broker, and again by a relay if the broker lost them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import HeadraceError, StoreUnavailable
from headrace.contracts.message import queue_name
from headrace.producers.replies.store_lookup import RowLookup
from headrace.producers.requests.factory import Block

if TYPE_CHECKING:
    from headrace.producers.replies.pending import Waiting
    from headrace.results_store.durable.application import AsyncTransaction, Transaction
    from headrace.results_store.durable.block import DurableBlock

_log: Final = logging.getLogger(__name__)


class DurableRequests:
    """Writes and reads the rows of a client's durable requests; every method blocks."""

    def __init__(self, rows: RowLookup, prefix: str) -> None:
        """rows: the way to the store. prefix: of the keys in Redis."""
        self._rows = rows
        self._prefix = prefix

    def blocks(self, model: str, priority: int, blocks: Iterable[Block]) -> Iterator[DurableBlock]:
        """Yield requests in the blocks in which they are kept. Raises ConfigurationError without a database."""
        from headrace.results_store.durable.block import blocks_of

        self._rows.requests()
        for block in blocks:
            yield from blocks_of(self._prefix, queue_name(model), priority, block.ids, block.messages, block.compacted)

    def inserting(self, block: DurableBlock) -> AbstractContextManager[None]:
        """Commit a block that is sent next, while the body of the `with` statement runs. See `RequestStore.inserting`.

        Raises StoreUnavailable, ConfigurationError.
        """
        return self._rows.requests().inserting(block)

    def insert(self, block: DurableBlock) -> None:
        """Commit a block that is sent next. Raises like `inserting`."""
        with self.inserting(block):
            pass

    def insert_within(self, transaction: Transaction, block: DurableBlock) -> None:
        """Insert a block in an application's transaction. Raises InvalidRequest and what `inserting` raises."""
        from headrace.results_store.durable.application import insert_within

        insert_within(transaction, block, self._rows.requests().database_id())

    async def insert_within_async(self, transaction: AsyncTransaction, block: DurableBlock) -> None:
        """Insert a block in an application's transaction of asyncio; see `insert_within`."""
        from headrace.results_store.durable.application import insert_within_async

        database_id = await asyncio.to_thread(lambda: self._rows.requests().database_id())
        await insert_within_async(transaction, block, database_id)

    def sent(self, block: DurableBlock, count: int) -> None:
        """Take note that the first requests of a block were sent; the relay sends the others."""
        try:
            self._rows.requests().mark_sent(block, count)
        except StoreUnavailable as exc:
            # The relay sends them once more then, which does no harm.
            _log.info("durable_not_marked block=%s error=%r", block.id, exc.message)

    def explain(self, handle: Waiting) -> str:
        """Return why a durable request may have no result yet, for an error; "" if it was sent or can't be told."""
        kept = handle.standing.kept
        if kept is None:
            return ""
        try:
            there = self._rows.requests().kept([kept])
        except HeadraceError as exc:
            _log.debug("durable_not_explained request=%s error=%r", handle.id, exc.message)
            return ""
        if kept not in there:
            return "the transaction that it is part of is not committed, or was rolled back"
        return "" if there[kept] else "it is committed and not sent yet, which is done by workers"


def not_sent(block: DurableBlock, exc: HeadraceError) -> None:
    """Log that a relay will send what could not be sent at once."""
    _log.warning("durable_sent_later queue=%s requests=%d error=%r", block.queue, len(block.ids), exc.message)
