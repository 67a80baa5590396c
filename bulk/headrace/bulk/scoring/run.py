"""The scoring of one record batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.base import PreparedRows
from headrace.bulk.columns.output import OutputColumns
from headrace.bulk.columns.preparation import ColumnPreparation
from headrace.contracts import HeadraceError, InferenceFailed, InvalidRequest, OutputMismatch
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.base import LoadedModel, OutOfMemory, TransientFailure

#: The column that says why a row has no outputs.
ERROR: Final = "headrace_error"


class Plan(msgspec.Struct, frozen=True):
    """The steps for tables of one schema. kept: columns of the result that come from the table."""

    preparation: ColumnPreparation
    outputs: OutputColumns
    kept: tuple[str, ...]
    schema: pa.Schema


class Run:
    """The scoring of one record batch."""

    def __init__(self, batch: pa.RecordBatch, plan: Plan, model: LoadedModel, max_rows: int) -> None:
        """model: nobody else uses it meanwhile. max_rows: of a run of it."""
        self._batch = batch
        self._plan = plan
        self._model = model
        self._max_rows = max_rows
        self._errors: dict[int, str] = {}
        self._raised: Exception | None = None
        self._parts: list[pa.RecordBatch] = []
        self._rows: list[NDArray[np.int64]] = []

    def result(self, *, raising: bool) -> pa.RecordBatch:
        """Return the rows of the batch in their order, without those that are skipped."""
        rows = self._batch.num_rows
        at_once = self._plan.preparation.rows_at_once or max(rows, 1)
        skipped = np.zeros(rows, np.bool_)
        for start in range(0, rows, at_once):
            prepared = self._plan.preparation.prepare(self._batch.slice(start, at_once))
            skipped[start + prepared.skipped] = True
            for refused in prepared.refused:
                self._fail(start + refused.at, InvalidRequest(f"{refused.type}: {refused.message}"))
            self._run_rows(prepared, start)
        if raising and self._raised is not None:
            raise self._raised
        return self._assembled(np.flatnonzero(~skipped))

    def _fail(self, row: int, error: Exception) -> None:
        self._errors[row] = str(error)
        self._raised = self._raised or error

    def _run_rows(self, prepared: PreparedRows, start: int) -> None:
        for which in cut_rows(prepared, self._max_rows):
            self._run(prepared, which, start)

    def _run(self, prepared: PreparedRows, which: NDArray[np.int64], start: int) -> None:
        """Run some rows; when the model fails, halve them until the row that it fails on stands alone."""
        try:
            outputs: Tensors = self._model.infer(prepared.tensors(which))
            part = self._part(outputs, len(which))
        except Exception as exc:
            if isinstance(exc, TransientFailure) and not isinstance(exc, OutOfMemory):
                raise
            if len(which) > 1:
                self._run(prepared, which[: len(which) // 2], start)
                self._run(prepared, which[len(which) // 2 :], start)
            else:
                known = exc if isinstance(exc, HeadraceError) else InferenceFailed(f"{type(exc).__name__}: {exc}")
                self._fail(start + int(prepared.good[which[0]]), known)
            return
        self._parts.append(part)
        self._rows.append(start + prepared.good[which])

    def _part(self, outputs: Tensors, rows: int) -> pa.RecordBatch:
        part = self._plan.outputs.batch(outputs, self._batch.slice(0, 0))
        if part.num_rows != rows:
            raise OutputMismatch(f"the model gave {part.num_rows} rows for {rows}; add its file anew")
        return part

    def _assembled(self, rows: NDArray[np.int64]) -> pa.RecordBatch:
        schema = self._plan.schema
        scored = pa.Table.from_batches(self._parts, self._plan.outputs.schema)
        place = np.full(self._batch.num_rows, -1, np.int64)
        if self._rows:
            place[np.concatenate(self._rows)] = np.arange(scored.num_rows)
        place = place[rows]
        taken = scored.combine_chunks().take(pa.array(place, mask=place < 0))
        kept = self._batch.take(pa.array(rows)) if len(rows) < self._batch.num_rows else self._batch
        arrays = [kept.column(name) for name in self._plan.kept]
        arrays += [_one(column) for column in taken.columns]
        if schema.names[-1] == ERROR:
            arrays.append(pa.array([self._errors.get(row) for row in rows.tolist()], pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def cut_rows(prepared: PreparedRows, max_rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield indexes of the good rows that run together: those of one group only, and of similar lengths."""
    order = np.arange(len(prepared.good))
    if prepared.lengths is not None:
        order = np.argsort(prepared.lengths, kind="stable")
    if prepared.groups is not None:
        order = order[np.argsort(prepared.groups[order], kind="stable")]
        ends = np.flatnonzero(np.diff(prepared.groups[order])) + 1
        pieces: Sequence[NDArray[np.int64]] = np.split(order, ends)
    else:
        pieces = [order]
    for piece in pieces:
        for start in range(0, len(piece), max_rows):
            yield piece[start : start + max_rows]


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)
