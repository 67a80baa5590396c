"""Dry runs: a sample of a job is scored, nothing is published, and what the whole would take is estimated."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.bulk.planning.survey import Survey
from headrace.bulk.shards.attempt import Attempt
from headrace.bulk.shards.groups import Raw
from headrace.bulk.shards.inference import Inference
from headrace.bulk.shards.job import OpenJob
from headrace.bulk.shards.output import in_input_order
from headrace.bulk.shards.run import Directive
from headrace.bulk.sinks.base import PartWriter
from headrace.bulk.sources.formats import source_of
from headrace.bulk.storage.base import Storage
from headrace.contracts.jobs import DryRun
from headrace.contracts.tensors.codec import Tensors
from headrace.results_store.jobs.records import Claim, InputFile, JobRow, Slice

#: A sample takes about so long, or has so many rows, whichever comes first.
SAMPLE_S: Final = 3.0
SAMPLE_ROWS: Final = 10_000

#: Rows of the output, and bad rows, that are shown.
SHOWN: Final = 5

#: An estimate is off by as much as rows differ, which a sample of the first rows can't tell.
UNSURE: Final = 1.3


class _Sampling:
    """Stops a run when the sample is large enough."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + SAMPLE_S

    def directive(self) -> Directive:
        return Directive.STOP if time.monotonic() >= self._ends_at else Directive.GO

    def progress(self, rows: int) -> None:
        pass


class _Preview:
    """Writes a sample to a scratch part, and keeps its first rows."""

    def __init__(self, job: OpenJob, part: PartWriter) -> None:
        self._job = job
        self._part = part
        self.rows: list[dict[str, Any]] = []

    @property
    def size_bytes(self) -> int:
        return self._part.size_bytes

    def write(self, raw: Raw, which: NDArray[np.int64], outputs: list[Tensors]) -> None:
        for batch in in_input_order(raw, which, outputs, self._job.columns, self._job.output_axes):
            self._part.write(batch)
            if len(self.rows) < SHOWN:
                self.rows += batch.slice(0, SHOWN - len(self.rows)).to_pylist()


def dry_run(job: OpenJob, found: Survey, storage: Storage, inference: Inference, scratch: Path, workers: int) -> DryRun:
    """Score a sample of a job. found: its inputs. workers: on which the whole would run.

    Raises what a shard of the job would raise.
    """
    if found.first is None:
        return _report(job, DryRun(**_NOTHING))
    claim = _claim(job.job, found.first)
    part = job.open_part(scratch)
    preview = _Preview(job, part)
    try:
        start = time.perf_counter()
        tally = Attempt(job, claim, inference, scratch).run_into(preview, _Sampling(), lambda *_: None)
        seconds = max(time.perf_counter() - start, 1e-6)
        local = part.close({})
        output_bytes = local.stat().st_size
        local.unlink()
    except BaseException:
        part.abort()
        raise
    total_rows = total_rows_of(found, storage, tally.rows, ended=tally.ended and tally.rows < claim.slice.rows)
    total_s = total_rows / (tally.rows / seconds) / max(workers, 1) if total_rows >= 0 and tally.rows else -1.0
    return _report(
        job,
        DryRun(
            rows=tally.ok,
            bad=len(tally.bad),
            seconds=seconds,
            total_rows=total_rows,
            total_bytes=-1 if found.bytes_total is None else found.bytes_total,
            workers=workers,
            seconds_low=total_s / UNSURE if total_s >= 0 else -1.0,
            seconds_high=total_s * UNSURE if total_s >= 0 else -1.0,
            output_bytes=int(output_bytes * total_rows / tally.rows) if total_rows >= 0 and tally.rows else -1,
            memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            preview=[_as_json(row) for row in preview.rows],
            problems=[f"row {bad.row}: {bad.message}" for bad in tally.bad[:SHOWN]],
        ),
    )


_NOTHING: Final[dict[str, Any]] = {
    "rows": 0,
    "bad": 0,
    "seconds": 0.0,
    "total_rows": 0,
    "total_bytes": 0,
    "workers": 1,
    "seconds_low": 0.0,
    "seconds_high": 0.0,
    "output_bytes": 0,
    "memory_bytes": 0,
}


def _report(job: OpenJob, found: DryRun) -> DryRun:
    columns = {field.name: str(field.type) for field in job.columns.schema}
    return msgspec.structs.replace(found, columns=columns, notes=list(job.notes))


def _claim(job: JobRow, first: InputFile) -> Claim:
    limit = min(job.spec.limit or SAMPLE_ROWS, SAMPLE_ROWS)
    return Claim(job=job, shard_no=0, attempt=1, slice=Slice(file_no=first.file_no, rows=limit), files=[first])


def total_rows_of(found: Survey, storage: Storage, sampled: int, *, ended: bool) -> int:
    """Return how many rows the input has, about; -1 if nobody knows.

    By the bytes of all files and of a row of the first one, whose rows are counted where that is cheap.
    """
    first = found.first
    if first is None or found.bytes_total is None:
        return -1
    if first.rows >= 0:  # each file is a row
        return found.files
    rows = sampled if ended else sum(unit.rows for unit in source_of(first.uri, first.format).units(first, storage))
    return round(rows * found.bytes_total / first.size) if rows >= 0 and first.size else -1


def _as_json(row: dict[str, Any]) -> dict[str, object]:
    """Return a row of the output as JSON values."""
    found: dict[str, object] = json.loads(json.dumps(row, default=str))
    return found
