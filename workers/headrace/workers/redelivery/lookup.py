"""Looks redelivered requests up in the store: those with a row are answered, poison is set aside, the others run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.contracts import HeadraceError, PoisonRequest, State
from headrace.results_store import Prediction, StoreReader
from headrace.workers.request import AlreadyStored, DeadLetterReason, InferenceRequest, Outcome, Parsed

if TYPE_CHECKING:
    from headrace.queueing import Crash

logger = logging.getLogger(__name__)

#: While Postgres is away, the look-up is repeated after so long; the requests stay held meanwhile.
RETRY_S: Final = 0.5

#: Most ids in one look-up.
MAX_IDS: Final = 500


class Classified(msgspec.Struct):
    """Redelivered requests, by how they go on.

    to_run: those without a row. known: those whose row exists. poison: those that no worker should run any more.
    ended: those without a row that can't run for what the intake found.
    """

    to_run: list[InferenceRequest]
    already_stored: list[AlreadyStored]
    poison: list[Outcome]
    ended: list[Outcome]


class RedeliveryLookup:
    """Looks up the rows of redelivered requests, many at once, in a thread of its own."""

    def __init__(self, reader: StoreReader, *, max_deliveries: int) -> None:
        """max_deliveries: a request goes to the dead letters when this many workers died while they ran it."""
        self._reader = reader
        self._max_deliveries = max_deliveries
        self._classified: Callable[[Classified], None] = lambda _: None
        self._asked: queue.SimpleQueue[Parsed | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="headrace-redelivery", daemon=True)

    def start(self, classified: Callable[[Classified], None]) -> None:
        """Start the thread. classified: called on it with requests that were looked up."""
        self._classified = classified
        self._thread.start()

    def ask(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        """Look up a request; any thread. ending: how it ends if it has no row."""
        self._asked.put((request, ending))

    def close(self, timeout_s: float) -> None:
        """End the thread; what it has not looked up stays held, and goes back with its consumer."""
        self._stopped.set()
        self._asked.put(None)
        self._thread.join(timeout_s)
        self._reader.close()

    def _loop(self) -> None:
        while (parsed := self._collect()) and not self._stopped.is_set():
            rows = self._look_up([request.id for request, _ in parsed])
            if rows is not None:
                self._classified(classify(parsed, rows, self._max_deliveries))

    def _collect(self) -> list[Parsed]:
        parsed: list[Parsed] = []
        asked = self._asked.get()
        while asked is not None:
            parsed.append(asked)
            if len(parsed) == MAX_IDS:
                break
            try:
                asked = self._asked.get_nowait()
            except queue.Empty:
                break
        return parsed

    def _look_up(self, ids: list[str]) -> dict[str, Prediction] | None:
        """Find rows, however long Postgres is away; None when stopped meanwhile."""
        away = False
        while True:
            try:
                found = self._reader.get_many(ids)
            except HeadraceError as exc:
                if not away:
                    away = True
                    logger.warning("store away, %d redelivered requests wait for a look-up: %s", len(ids), exc.message)
                if self._stopped.wait(RETRY_S):
                    return None
                continue
            return found


def classify(parsed: Sequence[Parsed], rows: Mapping[str, Prediction], max_deliveries: int) -> Classified:
    """Sort redelivered requests by how they go on, given the rows of those that have one."""
    classified = Classified([], [], [], [])
    for request, ending in parsed:
        row = rows.get(request.id)
        deadly = len(request.deaths) >= max_deliveries
        # A poison's own row may be there without its letter: the worker died between the two.
        if row is not None and not (deadly and isinstance(row.error, PoisonRequest)):
            classified.already_stored.append(AlreadyStored(request=request, prediction=row))
        elif row is None and ending is not None:
            classified.ended.append(ending)
        elif deadly:
            classified.poison.append(_poison(request))
        else:
            classified.to_run.append(request)
    return classified


def _poison(request: InferenceRequest) -> Outcome:
    deaths = len(request.deaths)
    logger.error(
        "poison: request=%s model=%s ended %d workers; it is a dead letter now", request.id, request.model, deaths
    )
    what = _what_happened(request.deaths)
    return Outcome(
        request=request,
        state=State.FAILED,
        error=PoisonRequest(f"{what}; `headrace dead list` shows it and what happened", request_id=request.id),
        dead_letter=dead_letter_reason(request.deaths),
    )


def dead_letter_reason(deaths: Sequence[Crash]) -> DeadLetterReason:
    """Return why a message that killed its workers goes to the dead letters."""
    return DeadLetterReason(reason=f"poison: {_what_happened(deaths)}", history=[str(death) for death in deaths])


def _what_happened(deaths: Sequence[Crash]) -> str:
    return f"{len(deaths)} workers died while they ran this request"
