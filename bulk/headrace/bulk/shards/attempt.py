"""One attempt at a shard: run it, publish its part, and say what came of it for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from headrace.bulk.shards.careful import CarefulRun
from headrace.bulk.shards.inference import Inference
from headrace.bulk.shards.job import OpenJob
from headrace.bulk.shards.output import PartOutput
from headrace.bulk.shards.rest import rest_of
from headrace.bulk.shards.run import Control, Plan, ShardRun, Tally, Writer
from headrace.bulk.shards.throttle import most_rows
from headrace.bulk.sinks.base import PART_BYTES, PartWriter
from headrace.bulk.sinks.output.publication import PublishedPart
from headrace.bulk.sources.base import RowBatch
from headrace.results_store.jobs.records import Claim, ShardResult, ShardSeconds


class Attempt:
    """One attempt at one shard."""

    def __init__(
        self,
        job: OpenJob,
        claim: Claim,
        inference: Inference,
        scratch: Path,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        """scratch: a local folder for the part while it is written.

        confirm: called just before the part is published; raises Dropped if the shard is somebody else's by now.
        """
        self._confirm: Final = confirm
        self._job: Final = job
        self._claim: Final = claim
        self._inference: Final = inference
        self._scratch: Final = scratch

    def run(
        self, control: Control, mark: Callable[[int, int], None], rows_per_s: Callable[[], float] = lambda: 0.0
    ) -> ShardResult:
        """Run the shard, as far as the control lets it, and publish what is done.

        mark: records which positions run, after an attempt that ended without a word. rows_per_s: its bound; 0 is none.
        Raises Dropped, TransientFailure, CancelledError when it was told to stop before anything could be published,
        and the errors of storages and sources that concern all rows.
        """
        part = self._job.open_part(self._scratch)
        try:
            writer = PartOutput(part, self._job.columns, self._job.output_axes)
            return self._publish(part, self.run_into(writer, control, mark, rows_per_s))
        except BaseException:
            part.abort()
            raise

    def run_into(
        self,
        writer: Writer,
        control: Control,
        mark: Callable[[int, int], None],
        rows_per_s: Callable[[], float] = lambda: 0.0,
    ) -> Tally:
        """Run the shard into a writer, and publish nothing; see `run`."""
        job, claim = self._job, self._claim
        preparation = job.preparation()
        storage = job.input_of(claim.files)
        bound = claim.job.options.max_rows_per_s  # that of the job, so that batches are the same in each attempt
        batch_rows = most_rows(job.batch_rows, 1, bound)
        plan = Plan(
            part=claim.slice,
            uris={file.file_no: file.uri for file in claim.files},
            read=lambda part: chosen(job.read(claim.files, part, preparation.columns, storage), claim.only),
            preparation=preparation,
            inference=self._inference,
            input_axes=job.input_axes,
            batch_rows=batch_rows,
            group_rows=most_rows(job.group_rows(preparation), batch_rows, bound),
            most_bytes=PART_BYTES,
            sorts=job.sorts,
            rows_per_s=rows_per_s,
        )
        if claim.deaths:
            tally = CarefulRun(plan, writer, control, mark).run(claim.suspect)
        else:
            tally = ShardRun(plan, writer, control).run()
        if not tally.ended and (claim.retry or not tally.rows):
            raise CancelledError  # a retry has no rest, since its rows are not neighbours
        tally.bytes_read = storage.bytes_read
        return tally

    def result(self, tally: Tally) -> ShardResult:
        """Return what came of a run, without a part."""
        claim = self._claim
        rest = None if claim.retry else tally.rest(claim.slice)
        seconds = ShardSeconds(
            read_s=tally.read_s,
            decode_s=tally.prepare_s,
            infer_s=tally.infer_s,
            write_s=tally.write_s,
            bytes_read=tally.bytes_read,
        )
        return ShardResult(
            rows_ok=tally.ok,
            rows_bad=len(tally.bad),
            rows_skipped=tally.skipped,
            bad=tally.bad,
            rest=rest,
            seconds=seconds,
        )

    def _publish(self, part: PartWriter, tally: Tally) -> ShardResult:
        claim, result = self._claim, self.result(tally)
        if not tally.ok:
            part.abort()
            return result
        stop = tally.next if result.rest is not None else (-1, -1)
        identity = self._job.identity(claim, (tally.ok, len(tally.bad), tally.skipped), stop)
        local = part.close(identity.metadata())
        self._confirm()
        published = self._job.publish(claim, local, identity, tally.bad)
        return _adopting(published, claim, result)


def _adopting(published: PublishedPart, claim: Claim, result: ShardResult) -> ShardResult:
    """Return the result with the part; an adopted one brings what came of the attempt that wrote it."""
    named = msgspec.structs.replace(
        result, part=published.name, part_etag=published.etag, part_bytes=published.size_bytes
    )
    if not published.adopted:
        return named
    theirs = published.identity
    return msgspec.structs.replace(
        named,
        rows_ok=theirs.rows_ok,
        rows_bad=theirs.rows_bad,
        rows_skipped=theirs.rows_skipped,
        rest=rest_of(claim.slice, theirs.stop_file, theirs.stop_row, theirs.rows) if theirs.stop_file >= 0 else None,
        bad=published.bad,
    )


def chosen(batches: Iterable[RowBatch], only: list[tuple[int, int]]) -> Iterator[RowBatch]:
    """Yield batches with some rows only, by file number and row; all of them if none are named."""
    if not only:
        yield from batches
        return
    wanted: dict[int, list[int]] = {}
    for file_no, row in only:
        wanted.setdefault(file_no, []).append(row)
    for batch in batches:
        rows = np.array(wanted.get(batch.file_no, []), np.int64)
        kept = np.flatnonzero(np.isin(batch.rows, rows))
        yield msgspec.structs.replace(
            batch,
            table=batch.table.take(kept),
            rows=batch.rows[kept],
            bad=[each for each in batch.bad if each.row in rows or each.row < 0],
        )
