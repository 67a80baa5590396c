"""Example jobs, shards and results."""

from __future__ import annotations

from typing import Any, Final

from headrace.contracts.jobs import JobOptions, ScoreSpec
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import (
    BadRow,
    Claim,
    Claimant,
    InputFile,
    JobRow,
    NewJob,
    Page,
    ShardResult,
    ShardSeconds,
    Slice,
)

MODEL: Final = "digits"
WORKER: Final = Claimant(worker="w1@host", models=(MODEL,))
ROWS: Final = 100
LEASE_S: Final = 60.0


def new_job(path: str = "/in/a.parquet", *, name: str = "", model: str = MODEL, **options: Any) -> NewJob:
    spec = ScoreSpec(model=model, inputs=(path,), output=f"/out/{model}{path}")
    return NewJob(spec=spec, options=JobOptions(**options), version="2", package_sha256="ab" * 32, name=name)


def plan(ledger: Ledger, job: JobRow, shards: int, *, done: bool = True) -> None:
    """Plan a job: one file, and shards of `ROWS` rows each."""
    lease = ledger.plans.lead(Claimant(worker="planner", models=(job.spec.model,)), LEASE_S, 1_000_000)
    assert lease is not None
    assert lease.job.id == job.id
    file = InputFile(file_no=0, uri=job.spec.inputs[0], format="parquet", size=shards * 1000, rows=shards * ROWS)
    assert ledger.plans.add_page(lease, Page(files=[file], slices=slices(shards), cursor=b"1", done=done))


def slices(count: int, first: int = 0, file_no: int = 0) -> list[Slice]:
    return [
        Slice(file_no=file_no, row_start=number * ROWS, rows=ROWS, size_bytes=1000, est_s=1.0)
        for number in range(first, first + count)
    ]


def bad_row(row: int, file_no: int = 0) -> BadRow:
    return BadRow(file_no=file_no, row=row, stage="decode", type="InvalidImage", message="not a JPEG", input=b"\xff")


def result(ok: int = ROWS, bad: tuple[int, ...] = (), skipped: int = 0, rest: Slice | None = None) -> ShardResult:
    """Return the result of a shard. bad: the numbers of its bad rows."""
    return ShardResult(
        rows_ok=ok,
        rows_bad=len(bad),
        rows_skipped=skipped,
        part="part",
        part_etag="etag",
        part_bytes=500,
        bad=[bad_row(row) for row in bad],
        rest=rest,
        seconds=ShardSeconds(read_s=0.1, decode_s=0.2, infer_s=0.5, write_s=0.1, bytes_read=900, wall_s=0.6),
    )


def claimed(ledger: Ledger, claimant: Claimant = WORKER, lease_s: float = LEASE_S) -> Claim:
    claim = ledger.claims.claim(claimant, lease_s)
    assert claim is not None
    return claim
