"""The end of a job as the real ledger knows it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bulk.sinks.base import FinalizingLost
from headrace.bulk.sinks.finishing.finalizer import Finalizer, Finished
from headrace.bulk.sinks.finishing.outcome import outcome_of
from headrace.bulk.sinks.formats.opening import open_part
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import part_name
from headrace.bulk.sinks.output.publication import publish_part
from headrace.bulk.storage.base import Storage
from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import (
    BadRow,
    Claim,
    Claimant,
    InputFile,
    JobRow,
    Lease,
    NewJob,
    Page,
    ShardResult,
    Slice,
)
from headrace.testing import TemporaryStack

WORKER = Claimant(worker="w1", models=("digits",))
ROWS = 10
NOW = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)


@pytest.fixture
def ledger(headrace_stack: TemporaryStack) -> Iterator[Ledger]:
    with headrace_stack.results_store() as url, Ledger(url) as ledger:
        yield ledger


def planned(ledger: Ledger, out: str, shards: int) -> JobRow:
    spec = ScoreSpec(model="digits", inputs=("/in",), output=out)
    job, _ = ledger.jobs.create(NewJob(spec=spec, options=JobOptions(), version="2", package_sha256="ab" * 32))
    lease = ledger.plans.lead(WORKER, 60.0, 1_000_000)
    assert lease
    files = [InputFile(file_no=0, uri="/in/a", format="parquet", size=1, rows=shards * ROWS)]
    slices = [Slice(file_no=0, row_start=at * ROWS, rows=ROWS, size_bytes=1, est_s=1.0) for at in range(shards)]
    assert ledger.plans.add_page(lease, Page(files=files, slices=slices, done=True))
    return job


def score(ledger: Ledger, storage: Storage, scratch: Path, bad: int) -> Claim:
    """Claim a shard, publish its part, and complete it. bad: how many of its rows, the last ones."""
    claim = ledger.claims.claim(WORKER, 60.0)
    assert claim
    rows = (len(claim.only) if claim.retry else ROWS) - bad
    identity = PartIdentity(
        key=claim.job.spec.key().hex(),
        job=str(claim.job.id),
        shard=claim.shard_no,
        file_no=claim.slice.file_no,
        row_start=claim.slice.row_start,
        rows_ok=rows,
    )
    table = pa.RecordBatch.from_pydict({"score": [1.0] * rows})
    writer = open_part("parquet", scratch / "part", table.schema)
    writer.write(table)
    name = part_name(claim.slice, "parquet", claim.retry)
    done = publish_part(storage, writer.close(identity.metadata()), claim.job.spec.output, name, identity)
    last = claim.only or [(0, claim.slice.row_start + row) for row in range(ROWS)]
    failed = [
        BadRow(file_no=file, row=row, stage="infer", type="InputRefused", message="NaN") for file, row in last[rows:]
    ]
    result = ShardResult(
        rows_ok=rows,
        rows_bad=bad,
        rows_skipped=0,
        part=done.name,
        part_etag=done.etag,
        part_bytes=done.size_bytes,
        bad=failed,
    )
    assert ledger.completions.complete(claim, result).stored
    return claim


def finalize(ledger: Ledger, storage: Storage, scratch: Path) -> tuple[Lease, Finished]:
    lease = ledger.finishes.lead(WORKER, 60.0)
    assert lease
    finished = Finalizer(storage, lease.job.spec.output, outcome_of(ledger, lease, NOW), scratch).run()
    return lease, finished


def manifest(out: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(out, "_manifest.json").read_bytes())
    return found


def test_a_job_of_the_ledger_ends_and_its_bad_rows_are_retried(
    ledger: Ledger, storage: Storage, out: str, tmp_path: Path
) -> None:
    job = planned(ledger, out, 3)
    for bad in (0, 2, 1):
        score(ledger, storage, tmp_path, bad)
    lease, finished = finalize(ledger, storage, tmp_path)
    assert ledger.finishes.finish(lease, JobState.SUCCEEDED, finished.manifest_etag)
    assert manifest(out)["rows"] == {"in": 30, "ok": 27, "bad": 3, "skipped": 0}
    assert pq.read_table(Path(out, "_errors")).column("row").to_pylist() == [18, 19, 29]

    assert ledger.control.retry(job.id) == 3
    while ledger.jobs.get(job.id).state is JobState.RUNNING:
        score(ledger, storage, tmp_path, 1)
    lease, finished = finalize(ledger, storage, tmp_path)
    assert ledger.finishes.finish(lease, JobState.SUCCEEDED, finished.manifest_etag)
    assert sum(part["rows"] for part in manifest(out)["parts"]) == pq.read_table(out).num_rows  # type: ignore[attr-defined]
    assert manifest(out)["retry"] == 1
    errors = pq.read_table(Path(out, "_errors"))
    assert errors.column("retry").to_pylist() == [1] * errors.num_rows
    assert Path(out, "_SUCCESS").exists()


def test_a_cancelled_job_of_the_ledger_has_a_manifest(
    ledger: Ledger, storage: Storage, out: str, tmp_path: Path
) -> None:
    job = planned(ledger, out, 3)
    score(ledger, storage, tmp_path, 1)
    ledger.control.cancel(job.id)
    lease, finished = finalize(ledger, storage, tmp_path)
    assert ledger.finishes.finish(lease, JobState.CANCELLED, finished.manifest_etag)
    assert (manifest(out)["state"], Path(out, "_SUCCESS").exists()) == ("cancelled", False)
    assert ledger.jobs.get(job.id).manifest_etag == finished.manifest_etag


def test_a_finalizer_whose_lease_is_lost_stops(ledger: Ledger, storage: Storage, out: str, tmp_path: Path) -> None:
    planned(ledger, out, 1)
    score(ledger, storage, tmp_path, 0)
    lease = ledger.finishes.lead(WORKER, 60.0)
    assert lease
    outcome = outcome_of(ledger, msgspec.structs.replace(lease, attempt=lease.attempt - 1), NOW)
    with pytest.raises(FinalizingLost, match="another worker finalizes"):
        Finalizer(storage, out, outcome, tmp_path).run()
    assert not Path(out, "_manifest.json").exists()
