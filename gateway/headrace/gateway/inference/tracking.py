"""Requests by their id: followed while they run, read from the store when they have ended, cancelled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.contracts.errors import BrokerUnavailable, HeadraceError, RequestLost, error_from_wire
from headrace.contracts.ids import MAX_ID_LENGTH, is_storable
from headrace.contracts.message import Reply
from headrace.contracts.states import LOST, PENDING
from headrace.gateway.inference.failure import Failure, Kind, failure_of
from headrace.gateway.inference.question import Question
from headrace.gateway.inference.records import Record, Records
from headrace.gateway.inference.watch import RowWatch
from headrace.producers import AsyncClient, AsyncHandle

if TYPE_CHECKING:
    from headrace.results_store import Prediction, StoreReader

#: How long the end of a request is waited for, to remove the note on it; as long as the note lives.
_FOLLOW_S: Final = 86_400.0

_log: Final = logging.getLogger(__name__)


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """A request by its id. row: None while it has none. failure: why it ended without an answer, if it did."""

    id: str
    model: str
    version: str
    state: str
    submitted_at: float | None
    row: Prediction | None = None
    failure: Failure | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state != PENDING


class Tracking:
    """Finds requests by id; belongs to one event loop."""

    def __init__(self, client: AsyncClient, rows: StoreReader, records: Records) -> None:
        """client, rows, records: the owner closes them."""
        self._client = client
        self._rows = rows
        self._records = records
        self._watch = RowWatch(rows)
        self._following: set[asyncio.Task[None]] = set()

    async def follow(self, handle: AsyncHandle, question: Question) -> Tracked:
        """Make an asynchronous request known under its id until it has a row. Raises Failure."""
        record = Record(question.model, question.version, time.time())
        try:
            await self._records.write(handle.id, record)
        except HeadraceError as exc:
            raise failure_of(exc, handle.id) from exc
        task = asyncio.create_task(self._follow(handle), name="headrace-gateway-follow")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return _pending(handle.id, record)

    async def note(self, handles: Iterable[AsyncHandle]) -> None:
        """Make requests known under their ids to other gateways, since this one ends. Errors are logged."""
        now = time.time()
        notes = [self._records.write(handle.id, Record(handle.model, "", now)) for handle in handles]
        failed = [each for each in await asyncio.gather(*notes, return_exceptions=True) if each is not None]
        if failed:
            _log.warning("requests_not_noted requests=%d error=%r", len(failed), str(failed[0]))

    async def find(self, request_id: str, wait_s: float = 0.0) -> Tracked:
        """Return a request; wait for its end if it has not ended. Raises Failure."""
        _check_id(request_id)
        try:
            row = await asyncio.to_thread(self._rows.get, request_id)
            if row is not None:
                return _ended(request_id, row)
            record = await self._records.read(request_id)
            if record is not None and wait_s and not record.lost:
                row = await self._watch.wait(request_id, wait_s)
            elif record is None:
                # It may have ended between the two looks.
                row = await asyncio.to_thread(self._rows.get, request_id)
            if row is not None:
                return _ended(request_id, row)
            return await self._without_row(request_id, record)
        except HeadraceError as exc:
            raise failure_of(exc, request_id) from exc

    async def _without_row(self, request_id: str, record: Record | None) -> Tracked:
        reply = await self._records.answer(request_id)
        if reply is None and record is None:
            raise Failure(
                Kind.UNKNOWN_REQUEST,
                "no request of this id has a row, and none was sent through a gateway with `Prefer: respond-async` in "
                "the last day; rows are kept for HEADRACE_RETENTION_DAYS",
                request_id,
            )
        known = record or Record("", "", 0.0)
        return _pending(request_id, known) if reply is None else _replied(known, reply)

    async def cancel(self, request_id: str) -> Tracked:
        """Cancel a request unless it has ended; return it as it is then. Raises Failure."""
        found = await self.find(request_id)
        if found.ended:
            return found
        try:
            await AsyncHandle(self._client, request_id, found.model).cancel()
        except HeadraceError as exc:
            raise failure_of(exc, request_id) from exc
        return await self.find(request_id)

    def end_waits(self) -> None:
        """Have all who wait for the end of a request return at once."""
        self._watch.end_waits()

    async def close(self) -> None:
        """Stop waiting; the notes on requests that have not ended stay."""
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)
        await self._watch.close()
        await self._records.close()

    async def _follow(self, handle: AsyncHandle) -> None:
        """Remove the note on a request when it has ended; otherwise it goes by itself, but takes memory meanwhile."""
        try:
            await self._client.wait(handle, _FOLLOW_S)
            if handle.reply is not None:
                await self._records.remove(handle.id)
            elif handle.ended:
                await self._records.write(handle.id, Record(handle.model, "", time.time(), lost=True))
        except BrokerUnavailable as exc:
            _log.warning("request_not_followed request=%s error=%r", handle.id, exc.message)


def _check_id(request_id: str) -> None:
    if not 0 < len(request_id) <= MAX_ID_LENGTH or not is_storable(request_id):
        raise Failure(Kind.UNKNOWN_REQUEST, f"an id has 1 to {MAX_ID_LENGTH} characters and no NUL")


def _pending(request_id: str, record: Record) -> Tracked:
    lost = failure_of(RequestLost(), request_id) if record.lost else None
    return Tracked(
        id=request_id,
        model=record.model,
        version=record.version,
        state=LOST if lost else PENDING,
        submitted_at=record.submitted_at,
        failure=lost,
    )


def _replied(record: Record, reply: Reply) -> Tracked:
    return Tracked(
        id=reply.id,
        model=record.model,
        version=record.version,
        state=reply.state,
        submitted_at=record.submitted_at or None,
        failure=failure_of(error_from_wire(reply.error_type, reply.error_message, reply.id)),
    )


def _ended(request_id: str, row: Prediction) -> Tracked:
    return Tracked(
        id=request_id,
        model=row.model,
        version=row.served_version or row.version,
        state=row.state,
        submitted_at=None if row.submitted_at is None else row.submitted_at.timestamp(),
        row=row,
        failure=None if row.error is None else failure_of(row.error),
    )
