"""A dry run: the first rows of a job are scored, nothing is published, and the whole is estimated from them."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.bulk.shards.attempt import Attempt
from headrace.bulk.shards.groups import Raw
from headrace.bulk.shards.inference import Inference
from headrace.bulk.shards.job import OpenJob
from headrace.bulk.shards.output import in_input_order
from headrace.bulk.shards.run import Directive, Tally
from headrace.bulk.sinks.base import PartWriter
from headrace.contracts.jobs import DryRun, JobOptions, ScoreSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.results_store.jobs.records import Claim, InputFile, Slice

#: No further slice is begun after this time, and a running one stops at its next group.
SAMPLE_S: Final = 3.0

#: Rows and reasons that are shown.
_PREVIEW: Final = 5

#: Linux counts the peak of memory in KiB.
_KIB: Final = 1024

#: The rest of an input may be unlike its beginning: the estimate is a range.
_LOW: Final = 0.8
_HIGH: Final = 1.3


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a whole job. bytes_total, rows_total: of its input, None if unknown. workers: that serve it."""

    bytes_total: int | None
    rows_total: int | None
    workers: int


class Sampler:
    """Scores slices of a job as a worker would, for `SAMPLE_S`, and keeps nothing but figures and a few rows."""

    def __init__(self, job: OpenJob, inference: Inference, scratch: Path) -> None:
        """scratch: a local folder for the parts, which are removed."""
        self._job = job
        self._inference = inference
        self._scratch = scratch
        self._rows = self._bad = 0
        self._seconds = self._longest_s = self._rate = 0.0
        self._size_bytes = self._output_bytes = 0
        self._problems: dict[str, None] = {}
        self._preview: list[dict[str, Any]] = []

    def run(self, slices: Sequence[Slice], files: Sequence[InputFile]) -> None:
        """Score slices, one after the other. files: of all of them. Raises what an attempt at a shard raises."""
        limit = _Limit(time.monotonic() + SAMPLE_S)
        for part in slices:
            if limit.directive() is Directive.STOP:
                return
            mine = [file for file in files if part.file_no <= file.file_no < part.file_no + part.files]
            claim = Claim(job=self._job.job, shard_no=0, attempt=0, slice=part, files=mine)
            began = time.monotonic()
            tally = self._score(claim, limit)
            self._count(tally, part, time.monotonic() - began)

    def _score(self, claim: Claim, limit: _Limit) -> Tally:
        part = self._job.open_part(self._scratch)
        try:
            attempt = Attempt(self._job, claim, self._inference, self._scratch)
            tally = attempt.run_into(_Output(self._job, part, self._preview), limit, lambda _start, _stop: None)
            if tally.ok:
                local = part.close({})
                self._output_bytes += local.stat().st_size
                local.unlink()
        finally:
            part.abort()
        return tally

    def _count(self, tally: Tally, part: Slice, seconds: float) -> None:
        self._rows += tally.rows
        self._bad += len(tally.bad)
        self._seconds += seconds
        share = 1.0 if tally.ended or part.rows <= 0 else min(1.0, tally.rows / part.rows)
        self._size_bytes += int(part.size_bytes * share)
        self._problems |= {f"row {bad.row}: {bad.message}": None for bad in tally.bad[:_PREVIEW]}
        # The first slice warms the model up; the longest one tells the pace.
        if tally.rows and seconds > self._longest_s:
            self._longest_s, self._rate = seconds, tally.rows / max(seconds, 1e-6)

    def found(self, whole: Whole) -> DryRun:
        """Return what the sample adds up to."""
        job = self._job.job
        total = self._rows_total(whole, job.spec)
        seconds = 0.0 if total <= 0 or not self._rate else total / (self._rate * _workers(whole, job.options))
        if job.options.max_rows_per_s and total > 0:
            seconds = max(seconds, total / job.options.max_rows_per_s)
        row_bytes = self._output_bytes / self._rows if self._rows else 0.0
        return DryRun(
            rows=self._rows,
            bad=self._bad,
            seconds=self._seconds,
            total_rows=total,
            total_bytes=-1 if whole.bytes_total is None else whole.bytes_total,
            workers=_workers(whole, job.options),
            seconds_low=seconds * _LOW,
            seconds_high=seconds * _HIGH,
            output_bytes=int(row_bytes * max(total, self._rows)),
            memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB,
            columns={field.name: str(field.type) for field in self._job.columns.schema},
            preview=self._preview,
            problems=list(self._problems)[:_PREVIEW],
        )

    def _rows_total(self, whole: Whole, spec: ScoreSpec) -> int:
        """Return how many rows the job has, by bytes where nobody has counted them; -1 if that is unknown too."""
        total = whole.rows_total
        if total is None and whole.bytes_total is not None and self._size_bytes and self._rows:
            total = max(round(self._rows * whole.bytes_total / self._size_bytes), self._rows)
        if total is None:
            return spec.limit or -1
        return min(total, spec.limit) if spec.limit else total


def _workers(whole: Whole, options: JobOptions) -> int:
    there = max(1, whole.workers)
    return min(there, options.workers) if options.workers else there


class _Limit:
    """The control of a sample: stop when the time is up."""

    def __init__(self, until: float) -> None:
        self._until = until

    def directive(self) -> Directive:
        """Return what to do; called between groups."""
        return Directive.GO if time.monotonic() < self._until else Directive.STOP

    def progress(self, rows: int) -> None:
        """Do nothing."""


class _Output:
    """The writer of a sample: a part that is measured, and its first rows as plain values."""

    def __init__(self, job: OpenJob, part: PartWriter, preview: list[dict[str, Any]]) -> None:
        self._job = job
        self._part = part
        self._preview = preview

    @property
    def size_bytes(self) -> int:
        """About how many bytes were written."""
        return self._part.size_bytes

    def write(self, raw: Raw, which: NDArray[np.int64], outputs: list[Tensors]) -> None:
        """Write rows, and keep the first few."""
        for batch in in_input_order(raw, which, outputs, self._job.columns, self._job.output_axes):
            self._part.write(batch)
            rows = batch.slice(0, _PREVIEW - len(self._preview)).to_pylist() if len(self._preview) < _PREVIEW else []
            self._preview += [_plain(row) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(row, enc_hook=str, str_keys=True)
    return values
