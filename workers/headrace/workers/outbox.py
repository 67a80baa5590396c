"""The outbox: finished batches become committed rows, then replies, then acknowledgements, in this order."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import redis

from headrace.contracts import BrokerUnavailable, HeadraceError, Settings
from headrace.contracts.message import Reply
from headrace.queueing import ClaimingConsumer, Command, CommandLine, translate_errors
from headrace.queueing.keys import keys_of
from headrace.results_store import StoreRejected, StoreWriter
from headrace.results_store.rows import Conflict
from headrace.workers.refusal import without
from headrace.workers.replies import Answers
from headrace.workers.reply_sender import ReplySender
from headrace.workers.request import FinishedBatch, InferenceRequest
from headrace.workers.storing import stored_form
from headrace.workers.vital import vital_thread

logger = logging.getLogger(__name__)

#: While Postgres or Redis is away, the outbox tries again after this many seconds; its batches are safe meanwhile.
RETRY_S: Final = 0.5

#: Batches that finished while the last were being stored are stored together, up to this many rows.
MAX_ROWS_TOGETHER: Final = 2_000


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
        self._finished: queue.SimpleQueue[FinishedBatch | _Stop] = queue.SimpleQueue()
        # Each counter has one writing thread, so neither needs a lock.
        self._rows_in = 0
        self._rows_out = 0
        self._available = True
        self._abandon = threading.Event()
        self._lock = threading.Lock()
        self._thread = vital_thread("headrace-outbox", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, batch: FinishedBatch) -> None:
        """Hand over a finished batch; any thread; never blocks."""
        with self._lock:
            self._rows_in += max(batch.rows, batch.requests)
        self._finished.put(batch)

    @property
    def has_room(self) -> bool:
        """Whether the executor may finish another batch."""
        return self._rows_in - self._rows_out < self._settings.outbox_rows

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
        self._thread.join(RETRY_S * 4)

    def _loop(self) -> None:
        stop = False
        while not stop:
            batches, stop = self._collect()
            if batches and not self._finish(batches):
                break
        self._line.close()

    def _collect(self) -> tuple[list[FinishedBatch], bool]:
        batches: list[FinishedBatch] = []
        rows = 0
        item = self._finished.get()
        while not isinstance(item, _Stop):
            batches.append(item)
            rows += item.rows
            if rows >= MAX_ROWS_TOGETHER:
                return batches, False
            try:
                item = self._finished.get_nowait()
            except queue.Empty:
                return batches, False
        return batches, True

    def _finish(self, batches: list[FinishedBatch]) -> bool:
        """Store, answer and acknowledge; False when given up at shutdown."""
        answers, done = self._store(batches)
        if not done or not self._answer(batches, answers):
            return False
        had_room = self.has_room
        self._rows_out += sum(max(batch.rows, batch.requests) for batch in batches)
        self._settled(batches)
        if not had_room and self.has_room:
            self._room()
        return True

    def _store(self, batches: list[FinishedBatch]) -> tuple[Answers, bool]:
        """Commit the rows, however long Postgres is away."""
        while True:
            answers = Answers.empty()
            forms = [stored_form(batch, self._worker, self._settings, answers) for batch in batches]
            try:
                existed = self._writer.write(forms)
            except StoreRejected as exc:
                batches[:] = [without(batch, set(exc.ids), exc.message) for batch in batches]
                continue
            except HeadraceError as exc:
                # Away, full, read-only, or not the schema it was: a commit may succeed once somebody has put it right.
                if self._available:
                    self._available = False
                    logger.warning("store away, holding %d rows: %s", self._rows_in - self._rows_out, exc.message)
                if self._abandon.wait(RETRY_S):
                    return answers, False
                continue
            if not self._available:
                self._available = True
                logger.warning("store back")
                self._room()
            if existed:
                _refer_to_rows(answers, batches, existed)
            return answers, True

    def _answer(self, batches: list[FinishedBatch], answers: Answers) -> bool:
        """Send replies and acknowledgements in one round trip, however long Redis is away."""
        settling = list(_settling_commands(batches))
        away = False
        while True:
            try:
                with translate_errors():
                    self._replies.send(answers, settling)
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
    """Acknowledge, put off or bury, after all replies."""
    tags: dict[ClaimingConsumer, list[str]] = {}

    def settle(request: InferenceRequest) -> None:
        tags.setdefault(request.consumer, []).append(request.tag)

    for batch in batches:
        for run in batch.runs:
            for request in run.requests:
                tags.setdefault(request.consumer, []).append(request.tag)
        for known in batch.known:
            settle(known.request)
        for deferred in batch.deferred:
            consumer, tag = deferred.request.consumer, deferred.request.tag
            delay = consumer.defer_command if deferred.is_retry else consumer.postpone_command
            yield delay(tag, deferred.delay_s)
        for outcome in batch.outcomes:
            if outcome.burial is None:
                settle(outcome.request)
            else:
                request, burial = outcome.request, outcome.burial
                yield request.consumer.bury_command(request.tag, burial.reason, burial.history)
    for consumer, held in tags.items():
        yield from consumer.ack_commands(held)


def _refer_to_rows(answers: Answers, batches: list[FinishedBatch], conflicts: list[Conflict]) -> None:
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
    for replies in answers.by_inbox.values():
        replies[:] = [_reply_of(row, reply.id) if (row := found.get(reply.id)) else reply for reply in replies]


def _reply_of(row: Conflict, request_id: str) -> Reply:
    return Reply(
        id=request_id, state=row.state, stored=True, error_type=row.error_type, error_message=row.error_message
    )
