"""What the outbox holds: finished batches with their sizes, and rows that Postgres refuses while it takes others."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping

import msgspec

from headrace.results_store.blame import is_to_blame, pause_s
from headrace.workers.encoding import body_bytes
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome, Run


class Held(msgspec.Struct, kw_only=True, eq=False):
    """A finished batch in the outbox. rows, size_bytes: how much of the outbox's room it takes."""

    batch: FinishedBatch
    rows: int
    size_bytes: int

    @classmethod
    def of(cls, batch: FinishedBatch) -> Held:
        """Measure a batch."""
        size_bytes = sum(body_bytes(run.outputs) for run in batch.runs)
        return cls(batch=batch, rows=max(batch.rows, batch.requests), size_bytes=size_bytes)

    def set_aside(self, rows: Collection[uuid.UUID]) -> Held | None:
        """Move the requests with these rows, and their share of the room, to a batch of their own; None without any."""
        self.batch, aside = _parted(self.batch, rows)
        if aside is None:
            return None
        held = Held.of(aside)
        held.rows = min(sum(max(1, request.rows) for request in _requests(aside)), self.rows)
        held.size_bytes = min(held.size_bytes, self.size_bytes)
        self.rows -= held.rows
        self.size_bytes -= held.size_bytes
        return held


def _requests(batch: FinishedBatch) -> Iterable[InferenceRequest]:
    for run in batch.runs:
        yield from run.requests
    for outcome in batch.outcomes:
        yield outcome.request


def _parted(batch: FinishedBatch, rows: Collection[uuid.UUID]) -> tuple[FinishedBatch, FinishedBatch | None]:
    """Return a batch without the requests of these rows, and one with nothing else.

    Both keep id and times of the batch, by which the store knows a row that is written again.
    """
    runs: list[Run] = []
    aside_runs: list[Run] = []
    for run in batch.runs:
        if not any(request.row_id in rows for request in run.requests):
            runs.append(run)
            continue
        for one in run.apart():
            (aside_runs if one.requests[0].row_id in rows else runs).append(one)
    outcomes: list[Outcome] = []
    aside_outcomes: list[Outcome] = []
    for outcome in batch.outcomes:
        (aside_outcomes if outcome.request.row_id in rows else outcomes).append(outcome)
    if not aside_runs and not aside_outcomes:
        return batch, None
    aside = msgspec.structs.replace(
        batch, runs=aside_runs, outcomes=aside_outcomes, deferred=[], known=[], dependence=""
    )
    return msgspec.structs.replace(batch, runs=runs, outcomes=outcomes), aside


class Suspects:
    """How often each row was refused while other writes passed. A row once found to blame stays so."""

    def __init__(self) -> None:
        """Start without suspects."""
        self._tries: dict[uuid.UUID, int] = {}
        self._guilty: set[uuid.UUID] = set()

    def judge(self, refused: Mapping[uuid.UUID, str]) -> set[uuid.UUID]:
        """Count a refusal of each row, by its SQLSTATE; return those that will never be taken as they are."""
        for row, code in refused.items():
            self._tries[row] = self._tries.get(row, 0) + 1
            if is_to_blame(code, self._tries[row]):
                self._guilty.add(row)
        return self._guilty & refused.keys()

    def pause_s(self, rows: Iterable[uuid.UUID]) -> float:
        """Return how long to wait before these rows are tried again."""
        return max(pause_s(self._tries[row]) for row in rows)

    def forget(self, batches: Iterable[FinishedBatch]) -> None:
        """Forget rows that are stored, or whose requests ended without."""
        if self._tries:
            for batch in batches:
                for request in _requests(batch):
                    self._tries.pop(request.row_id, None)
                    self._guilty.discard(request.row_id)
