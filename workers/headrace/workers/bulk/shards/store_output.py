"""The output of a shard as rows of `predictions`, which are committed together with the shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.bulk.shards.groups import Raw
from headrace.bulk.shards.job import OpenJob
from headrace.contracts import State, Tensors, encode_tensors
from headrace.contracts.ids import row_of_job
from headrace.contracts.tensors.codec import can_be_json, datatypes_line, tensors_to_json
from headrace.contracts.tensors.rows import RowAxes
from headrace.results_store import BatchRows, Row
from headrace.results_store.database.errors import StoreRejected
from headrace.results_store.jobs.records import BadRow, Claim, ShardResult
from headrace.workers.outbox import row_encoding

#: `predictions.row_index` of a job: the number of the file and, in so many bits, that of the row in it.
ROW_BITS: Final = 40


class StoreOutput:
    """Gathers the rows of a shard for the store. batches: what was gathered."""

    def __init__(self, job: OpenJob, claim: Claim, worker: str) -> None:
        """worker: its name, noted with each row."""
        self.batches: Final[list[BatchRows]] = []
        self._job = job
        self._claim = claim
        self._worker = worker
        self._binary = job.package.manifest.store.outputs == "binary"
        self._started_at = time.time()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """About how many bytes were gathered."""
        return self._bytes

    def write(self, raw: Raw, which: NDArray[np.int64], outputs: list[Tensors]) -> None:
        """Gather rows. which: their positions in `raw.table`; outputs: of pieces of them, in order."""
        start = 0
        for piece in outputs:
            count = self._job.output_axes.count(piece)
            self._add(raw, which[start : start + count], piece)
            start += count

    def _add(self, raw: Raw, which: NDArray[np.int64], outputs: Tensors) -> None:
        job, datatypes = self._claim.job, datatypes_line(outputs)
        rows = []
        for at, (text, body) in zip(which.tolist(), self._encoded(outputs, len(which)), strict=True):
            file_no, row = int(raw.file_nos[at]), int(raw.rows[at])
            rows.append(
                Row(
                    id=row_of_job(job.id, file_no, row),
                    state=State.SUCCEEDED.value,
                    outputs=text,
                    datatypes=datatypes,
                    blob=body,
                    submitted_at=job.created_at.timestamp(),
                    attempts=self._claim.attempt,
                    job_id=str(job.id),
                    row_index=file_no << ROW_BITS | row,
                )
            )
            self._bytes += len(text or b"") + len(body or b"")
        self.batches.append(
            BatchRows(
                model=job.spec.model,
                version=job.version,
                rows=rows,
                started_at=self._started_at,
                finished_at=time.time(),
                worker=self._worker,
            )
        )

    def _encoded(self, outputs: Tensors, rows: int) -> list[tuple[bytes | None, bytes | None]]:
        """Return for each row its outputs as JSON, or as tensors where JSON can't hold them."""
        axes = self._job.output_axes
        if not self._binary and _is_plain(outputs, axes) and all(map(row_encoding.splits, outputs.values())):
            return [(text, None) for text in row_encoding.single_row_texts(outputs)]
        if self._binary and _is_plain(outputs, axes):
            return [(None, body) for body in row_encoding.single_row_bodies(outputs, rows)]
        pieces = [axes.cut(outputs, at, at + 1) for at in range(rows)]
        return [
            (tensors_to_json(piece), None) if not self._binary and can_be_json(piece) else (None, encode_tensors(piece))
            for piece in pieces
        ]


def _is_plain(outputs: Tensors, axes: RowAxes) -> bool:
    return axes.all_first and all(array.dtype.kind in "biuf" for array in outputs.values())


def without_refused(
    result: ShardResult, batches: Sequence[BatchRows], refusal: StoreRejected
) -> tuple[ShardResult, list[BatchRows]]:
    """Return a result and its rows without those that Postgres refuses, which are bad rows."""
    bad: list[BadRow] = []
    kept: list[BatchRows] = []
    for batch in batches:
        refused = [row for row in batch.rows if row.id in refusal.refused]
        bad += [_as_bad_row(row, refusal.refused[row.id]) for row in refused]
        kept.append(msgspec.structs.replace(batch, rows=[row for row in batch.rows if row.id not in refusal.refused]))
    changed = msgspec.structs.replace(
        result,
        rows_ok=result.rows_ok - len(bad),
        rows_bad=result.rows_bad + len(bad),
        bad=[*result.bad, *bad],
    )
    return changed, kept


def _as_bad_row(row: Row, sqlstate: str) -> BadRow:
    index = row.row_index or 0
    return BadRow(
        file_no=index >> ROW_BITS,
        row=index & ((1 << ROW_BITS) - 1),
        stage="write",
        type=StoreRejected.__name__,
        message=f"Postgres refused the row (SQLSTATE {sqlstate})",
    )
