"""Contents of the outbox: finished batches with their sizes, and rows that Postgres rejects while it takes others."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from headrace.contracts import Tensors
from headrace.results_store.writing.error_causes import is_rejected_for_good, pause_s
from headrace.workers.outbox.row_encoding import body_bytes
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome, Run

#: Inputs of requests that have ended, and outputs of those that are stored: nobody reads them again.
_NOTHING: Final[Tensors] = {}


class Held(msgspec.Struct, kw_only=True, eq=False):
    """A finished batch in the outbox, or a part of one.

    rows, size_bytes: of this part. frees_bytes: how much memory is free once it is stored; parts of one batch share its
    arrays, so that the last of them frees all, and the others nothing.
    """

    batch: FinishedBatch
    rows: int
    size_bytes: int
    frees_bytes: int
    is_part: bool = False

    @classmethod
    def of(cls, batch: FinishedBatch) -> Held:
        """Measure a batch, and let go of what its requests were computed from."""
        for run in batch.runs:
            for request in run.requests:
                request.inputs = _NOTHING
        for ended in (batch.outcomes, batch.deferred, batch.already_stored):
            for one in ended:
                one.request.inputs = _NOTHING
        size_bytes = sum(body_bytes(run.outputs) for run in batch.runs)
        rows = max(batch.rows, batch.requests)
        return cls(batch=batch, rows=rows, size_bytes=size_bytes, frees_bytes=size_bytes)

    def set_aside(self, rows: Collection[uuid.UUID]) -> Held | None:
        """Move the requests with these rows to a part of its own, with copies of their outputs; None without any.

        The copies are what it frees; this part frees what it did.
        """
        runs: list[Run] = []
        aside: list[Run] = []
        for run in self.batch.runs:
            if any(request.row_id in rows for request in run.requests):
                for one in run.apart():
                    (aside if one.requests[0].row_id in rows else runs).append(one)
            else:
                runs.append(run)
        outcomes = [outcome for outcome in self.batch.outcomes if outcome.request.row_id not in rows]
        aside_outcomes = [outcome for outcome in self.batch.outcomes if outcome.request.row_id in rows]
        if not aside and not aside_outcomes:
            return None
        self.batch = msgspec.structs.replace(self.batch, runs=runs, outcomes=outcomes)
        # Copies, since a view keeps the outputs of the whole batch alive.
        part = self._take([_copied(run) for run in aside], aside_outcomes)
        part.frees_bytes = part.size_bytes
        return part

    def cut(self, limit_bytes: int) -> list[Held]:
        """Return parts of at most this size, or of one request; the first has all that is not in a run."""
        if self.size_bytes <= limit_bytes or not self.batch.runs:
            return [self]
        groups: list[list[Run]] = []
        room_bytes = 0
        for run in (one for shared in self.batch.runs for one in shared.apart()):
            size_bytes = body_bytes(run.outputs)
            if not groups or size_bytes > room_bytes:
                groups.append([])
                room_bytes = limit_bytes
            groups[-1].append(run)
            room_bytes -= size_bytes
        self.batch = msgspec.structs.replace(self.batch, runs=groups[0])
        parts = [self, *(self._take(group, []) for group in groups[1:])]
        self.frees_bytes, parts[-1].frees_bytes = 0, self.frees_bytes
        return parts

    def _take(self, runs: list[Run], outcomes: list[Outcome]) -> Held:
        """Return a part with these, and its share of the room.

        It keeps id and times of the batch, by which the store knows a row that is written again.
        """
        batch = msgspec.structs.replace(
            self.batch, runs=runs, outcomes=outcomes, deferred=[], already_stored=[], dependence=""
        )
        rows = min(sum(max(1, request.rows) for request in _requests(batch)), self.rows)
        size_bytes = min(sum(body_bytes(run.outputs) for run in runs), self.size_bytes)
        self.rows -= rows
        self.size_bytes -= size_bytes
        self.is_part = True
        return Held(batch=batch, rows=rows, size_bytes=size_bytes, frees_bytes=0, is_part=True)

    def settled(self) -> FinishedBatch:
        """Let go of the outputs, which are stored, and return what is told of the batch; a part has its own rows."""
        for run in self.batch.runs:
            run.outputs = _NOTHING
        return msgspec.structs.replace(self.batch, rows=self.rows) if self.is_part else self.batch


def portions(parcel: list[Held], limit_bytes: int) -> Iterator[list[Held]]:
    """Return the same in portions of at most this size, or of one request; most often that is one."""
    portion: list[Held] = []
    size_bytes = 0
    for part in (part for held in parcel for part in held.cut(limit_bytes)):
        if portion and size_bytes + part.size_bytes > limit_bytes:
            yield portion
            portion, size_bytes = [], 0
        portion.append(part)
        size_bytes += part.size_bytes
    yield portion


def _copied(run: Run) -> Run:
    return msgspec.structs.replace(run, outputs={name: array.copy() for name, array in run.outputs.items()})


def _requests(batch: FinishedBatch) -> Iterable[InferenceRequest]:
    for run in batch.runs:
        yield from run.requests
    for ended in (batch.outcomes, batch.deferred, batch.already_stored):
        for one in ended:
            yield one.request


class Suspects:
    """How often each row was refused while other writes passed. A row once found to blame stays so."""

    def __init__(self) -> None:
        """Start without suspects."""
        self._tries: dict[uuid.UUID, int] = {}
        self._guilty: set[uuid.UUID] = set()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._tries)

    def is_first_refusal(self, rows: Iterable[uuid.UUID]) -> bool:
        """Return whether one of these rows was refused for the first time just now."""
        return any(self._tries[row] == 1 for row in rows)

    def judge(self, refused: Mapping[uuid.UUID, str]) -> set[uuid.UUID]:
        """Count a refusal of each row, by its SQLSTATE; return those that will never be taken as they are."""
        for row, code in refused.items():
            self._tries[row] = self._tries.get(row, 0) + 1
            if is_rejected_for_good(code, self._tries[row]):
                self._guilty.add(row)
        return self._guilty & refused.keys()

    def pause_s(self, rows: Iterable[uuid.UUID]) -> float:
        """Return how long to wait before these rows are tried again."""
        return max(pause_s(self._tries[row]) for row in rows)

    def forget(self, batches: Iterable[FinishedBatch]) -> None:
        """Forget rows that are stored, or whose requests ended without."""
        for batch in batches:
            for request in _requests(batch):
                self._tries.pop(request.row_id, None)
                self._guilty.discard(request.row_id)
