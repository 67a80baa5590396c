"""The outbox: finished batches become committed rows, then replies, then acknowledgements, in this order."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import redis

from headrace.contracts import BrokerUnavailable, HeadraceError, Settings
from headrace.queueing import ClaimingConsumer, Command, CommandLine, translate_errors
from headrace.queueing.keys import keys_of
from headrace.results_store import StoreRejected, StoreWriter
from headrace.results_store.writing.rows import Conflict
from headrace.workers.outbox.held import Held, Suspects, portions
from headrace.workers.outbox.rejected_rows import replace_rejected, report
from headrace.workers.outbox.replies import OutgoingReplies
from headrace.workers.outbox.reply_sender import ReplySender
from headrace.workers.outbox.rows import to_rows
from headrace.workers.process.fatal_thread import fatal_thread
from headrace.workers.request import FinishedBatch, InferenceRequest

logger = logging.getLogger(__name__)

#: While Postgres or Redis is away, the outbox tries again after this many seconds; its batches are safe meanwhile.
RETRY_S: Final = 0.5

#: Replies that found no room, and that nobody can read elsewhere, are sent again so often.
OWED_EVERY_S: Final = 1.0

#: How long a thread that is given up may take to end; it may hang in a server that says nothing.
GIVE_UP_S: Final = 0.5

#: Batches that finished while the last were being stored are stored together, up to this many rows.
MAX_ROWS_TOGETHER: Final = 2_000

#: And up to this many bytes of outputs; larger batches are stored in several parts. As JSON text, in the protocol of
#: Postgres and in libpq's buffer they take twelve times as much meanwhile.
MAX_BYTES_TOGETHER: Final = 4 << 20


class _Stop(msgspec.Struct):
    """Ends the outbox's thread after what was put before it."""


class Outbox:
    """Holds finished batches until their rows are committed; one thread.

    settled: called on the outbox's thread with batches whose requests are stored, answered and acknowledged.
    room: called on the outbox's thread when there is room again after there was none.
    """

    def __init__(
        self,
        writer: StoreWriter,
        client: redis.Redis,
        settings: Settings,
        *,
        worker: str,
        settled: Callable[[list[FinishedBatch]], None],
        room: Callable[[], None],
    ) -> None:
        """Create the outbox; `start` starts its thread."""
        self._writer = writer
        self._line = CommandLine(client)
        self._replies = ReplySender(self._line, keys_of(client), settings)
        self._settings = settings
        self._worker = worker
        self._settled = settled
        self._room = room
        self._finished: queue.SimpleQueue[Held | _Stop] = queue.SimpleQueue()
        # Batches that wait for their next try: when (monotonic seconds), a number that settles ties, and the batch.
        self._aside: list[tuple[float, int, Held]] = []
        self._numbers = itertools.count()
        self._suspects = Suspects()
        # What came in is counted under the lock, what went out by the outbox's thread alone.
        self._rows_in = self._bytes_in = 0
        self._rows_out = self._bytes_out = 0
        # Whether a batch waits for room, though there is some.
        self._awaited = False
        self._available = True
        self._abandon = threading.Event()
        self._lock = threading.Lock()
        self._thread = fatal_thread("headrace-outbox", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, batch: FinishedBatch) -> int:
        """Hand over a finished batch; return how many bytes of outputs it has. Any thread; never blocks."""
        held = Held.of(batch)
        with self._lock:
            self._rows_in += held.rows
            self._bytes_in += held.size_bytes
        size_bytes = held.size_bytes
        self._finished.put(held)
        return size_bytes

    @property
    def has_room(self) -> bool:
        """Whether the executor may finish another batch."""
        settings = self._settings
        return (
            self._rows_in - self._rows_out < settings.outbox_rows
            and self._bytes_in - self._bytes_out < settings.outbox_bytes
        )

    def has_room_for(self, size_bytes: int) -> bool:
        """Return whether a batch with outputs of about this size may begin; if not, `room` tells when to ask again.

        One that is larger than the bound may when nothing else is held. For the executor's thread.
        """
        if size_bytes <= self._room_bytes():
            return True
        self._awaited = True
        # Looked at once more: what became free before it was said that somebody waits, nobody tells of.
        return size_bytes <= self._room_bytes()

    def _room_bytes(self) -> float:
        held_bytes = self._bytes_in - self._bytes_out
        return self._settings.outbox_bytes - held_bytes if held_bytes > 0 else math.inf

    @property
    def available(self) -> bool:
        """False while Postgres is away: then nothing new should be claimed."""
        return self._available

    def stop(self) -> None:
        """Let the thread end once what was put is stored; `join` waits for that."""
        self._finished.put(_Stop())

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; False when it still runs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """End the thread though not all is stored: what is not was not acknowledged, so its lease brings it back."""
        self._abandon.set()
        self._writer.interrupt()
        self._thread.join(GIVE_UP_S)

    def _loop(self) -> None:
        stopping = False
        while not stopping or self._aside:
            fresh: list[Held] = []
            if not stopping:
                fresh, stopping = self._collect()
            elif self._abandon.wait(self._due_in_s()):
                break
            # By itself, so that what was refused before can't hold up what is fresh.
            late = [heapq.heappop(self._aside)[-1]] if self._aside and self._due_in_s() == 0 else []
            if not fresh and not late and self._replies.owes:
                self._answer([], OutgoingReplies.empty())
            if not all(self._finish(parcel) for parcel in (*portions(fresh, MAX_BYTES_TOGETHER), late) if parcel):
                break
        if self._replies.owes and not self._abandon.is_set():
            self._answer([], OutgoingReplies.empty())
        self._line.close()

    def _due_in_s(self) -> float:
        return max(0.0, self._aside[0][0] - time.monotonic())

    def _idle_s(self) -> float | None:
        """Return after how long to go on though nothing has finished; None for never."""
        waits = [self._due_in_s()] if self._aside else []
        return min([*waits, OWED_EVERY_S] if self._replies.owes else waits, default=None)

    def _collect(self) -> tuple[list[Held], bool]:
        """Return finished batches, and whether they were the last; none when one that was set aside is due before."""
        parcel: list[Held] = []
        rows = size_bytes = 0
        try:
            item = self._finished.get(timeout=self._idle_s())
            while not isinstance(item, _Stop):
                parcel.append(item)
                rows += item.rows
                size_bytes += item.size_bytes
                if rows >= MAX_ROWS_TOGETHER or size_bytes >= MAX_BYTES_TOGETHER:
                    return parcel, False
                item = self._finished.get_nowait()
        except queue.Empty:
            return parcel, False
        return parcel, True

    def _finish(self, parcel: list[Held]) -> bool:
        """Store, answer and acknowledge; False when given up at shutdown."""
        replies = self._store(parcel)
        batches = [held.batch for held in parcel]
        if replies is None or not self._answer(batches, replies):
            return False
        had_room = self.has_room
        self._rows_out += sum(held.rows for held in parcel)
        self._bytes_out += sum(held.frees_bytes for held in parcel)
        if self._suspects:
            report(batches)
            self._suspects.forget(batches)
        self._settled([held.settled() for held in parcel])
        if (self._awaited or not had_room) and self.has_room:
            self._awaited = False
            self._room()
        return True

    def _store(self, parcel: list[Held]) -> OutgoingReplies | None:
        """Commit the rows, however long Postgres is away; None when given up.

        Rows that it refuses while it takes others wait by themselves, and end with less in them, but they end.
        """
        while True:
            refused: StoreRejected | None = None
            try:
                replies = self._write(parcel)
            except StoreRejected as exc:
                refused = exc
            except HeadraceError as exc:
                # Away, full, read-only, or not the schema it was: a commit may succeed once somebody has put it right.
                if self._available:
                    self._available = False
                    logger.warning("store away, holding %d rows: %s", self._rows_in - self._rows_out, exc.message)
            else:
                self._came_back()
                return replies
            if refused is not None:
                self._came_back()
                self._part(parcel, refused)
            elif self._abandon.wait(RETRY_S):
                return None

    def _write(self, parcel: list[Held]) -> OutgoingReplies:
        # A frame of its own: while Postgres is away, nobody holds what was encoded.
        replies = OutgoingReplies.empty()
        batches = [held.batch for held in parcel]
        existed = self._writer.write([to_rows(batch, self._worker, self._settings, replies) for batch in batches])
        if existed:
            _refer_to_rows(replies, batches, existed)
        return replies

    def _came_back(self) -> None:
        if not self._available:
            self._available = True
            logger.warning("store back")
            self._room()

    def _part(self, parcel: list[Held], rejected: StoreRejected) -> None:
        """Replace rows that will never be taken; let those that may be wait outside of the parcel."""
        final = self._suspects.judge(rejected.refused)
        later = rejected.refused.keys() - final
        for held in parcel:
            aside = held.set_aside(later) if later else None
            if aside is not None:
                with self._lock:
                    self._bytes_in += aside.frees_bytes
                due = time.monotonic() + self._suspects.pause_s(later)
                heapq.heappush(self._aside, (due, next(self._numbers), aside))
            if final:
                held.batch = replace_rejected(held.batch, final, rejected.message)
        if later and self._suspects.is_first_refusal(later):
            logger.warning("store refuses %d rows for now, others pass: %s", len(later), rejected.message)

    def _answer(self, batches: list[FinishedBatch], replies: OutgoingReplies) -> bool:
        """Send replies and acknowledgements in one round trip, however long Redis is away."""
        settling = list(_settling_commands(batches))
        away = False
        while True:
            try:
                with translate_errors():
                    self._replies.send(replies, settling)
            except BrokerUnavailable as exc:
                if not away:
                    away = True
                    logger.warning("broker away, holding answers: %s", exc.message)
                if self._abandon.wait(RETRY_S):
                    return False
                continue
            if away:
                logger.warning("broker back")
            return True


def _settling_commands(batches: list[FinishedBatch]) -> Iterator[Command]:
    """Acknowledge, put off or dead-letter, after all replies."""
    tags: dict[ClaimingConsumer, list[str]] = {}

    def settle(request: InferenceRequest) -> None:
        tags.setdefault(request.consumer, []).append(request.tag)

    for batch in batches:
        for run in batch.runs:
            for request in run.requests:
                tags.setdefault(request.consumer, []).append(request.tag)
        for known in batch.already_stored:
            settle(known.request)
        for deferred in batch.deferred:
            consumer, tag = deferred.request.consumer, deferred.request.tag
            delay = consumer.defer_command if deferred.is_retry else consumer.postpone_command
            yield delay(tag, deferred.delay_s)
        for outcome in batch.outcomes:
            if outcome.dead_letter is None:
                settle(outcome.request)
            else:
                request, dead_letter = outcome.request, outcome.dead_letter
                answer = None if dead_letter.answer is None else (request.id, *dead_letter.answer)
                yield request.consumer.dead_letter_command(request.tag, dead_letter.reason, dead_letter.history, answer)
    for consumer, held in tags.items():
        yield from consumer.ack_commands(held)


def _refer_to_rows(replies: OutgoingReplies, batches: list[FinishedBatch], conflicts: list[Conflict]) -> None:
    """Where a row was there before (a redelivery, a cancellation), the row is the answer, not what was computed now."""
    rows = {conflict.id: conflict for conflict in conflicts}
    found = {
        request.id: rows[request.row_id]
        for batch in batches
        for request in (
            *(request for run in batch.runs for request in run.requests),
            *(outcome.request for outcome in batch.outcomes),
        )
        if request.row_id in rows
    }
    for inbox in replies.by_inbox.values():
        inbox[:] = [row.as_reply(reply.id) if (row := found.get(reply.id)) else reply for reply in inbox]
