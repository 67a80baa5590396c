"""A worker as far as the ledger can see: it plans, claims, completes and finalizes, and computes nothing."""

from __future__ import annotations

from typing import Final

from headrace.contracts.jobs import JobProblem, JobState
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.queueing import ClaimingConsumer
from headrace.queueing.consumer.serving import Served
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import (
    BadRow,
    Claim,
    Claimant,
    InputFile,
    Page,
    ShardResult,
    ShardSeconds,
    Slice,
)

MODEL: Final = "digits"
CHECKSUM: Final = "ab" * 32
ROWS: Final = 100
WORKER: Final = Claimant(worker="w1@host", models=(MODEL,))
_LEASE_S: Final = 60.0
_SPECS: Final = (TensorSpec(name="image", datatype="FP32", shape=(4,)),)


def served(version: str, checksum: str = CHECKSUM) -> Served:
    """Return what a worker announces."""
    return Served(version, Signature(inputs=_SPECS, outputs=_SPECS), checksum)


def announce(consumer: ClaimingConsumer, version: str = "2", checksum: str = CHECKSUM) -> None:
    """Announce the model as a worker does."""
    consumer.queues.add(f"score.{MODEL}")
    consumer.queues.serve({queue: served(version, checksum) for queue in (f"infer.{MODEL}", f"score.{MODEL}")})


class Player:
    """A worker that is played by a test."""

    def __init__(self, ledger: Ledger) -> None:
        """ledger: a session of its own."""
        self.ledger = ledger

    def plan(self, shards: int, *notes: str, done: bool = True) -> None:
        """Plan the job that is due: one file, and shards of `ROWS` rows each. notes: for its user."""
        lease = self.ledger.plans.lead(WORKER, _LEASE_S, 1_000_000)
        assert lease is not None
        file = InputFile(file_no=0, uri="/in/a.parquet", format="parquet", size=shards * 1000, rows=shards * ROWS)
        slices = [Slice(file_no=0, row_start=n * ROWS, rows=ROWS, size_bytes=1000, est_s=1.0) for n in range(shards)]
        page = Page(files=[file], slices=slices, cursor=b"1", done=done, notes=notes)
        assert self.ledger.plans.add_page(lease, page)

    def refuse(self, problem: JobProblem) -> None:
        """Fail the job that is due, as a probe does."""
        lease = self.ledger.plans.lead(WORKER, _LEASE_S, 1_000_000)
        assert lease is not None
        assert self.ledger.plans.fail(lease, problem.text)

    def claim(self) -> Claim:
        """Claim a shard, and do nothing with it."""
        claim = self.ledger.claims.claim(WORKER, _LEASE_S)
        assert claim is not None
        return claim

    def give_back(self, claim: Claim) -> None:
        """Give a shard back undone, as a worker does when its job is cancelled."""
        assert self.ledger.running.release(claim)

    def run(self, *bad: int) -> bool:
        """Run one shard; return False if none waits. bad: numbers of its rows that are bad."""
        claim = self.ledger.claims.claim(WORKER, _LEASE_S)
        if claim is None:
            return False
        start = claim.slice.row_start
        rows = [
            BadRow(file_no=0, row=start + n, stage="decode", type="InvalidImage", message="not a JPEG", input=b"\xffa")
            for n in bad
        ]
        result = ShardResult(
            rows_ok=ROWS - len(rows),
            rows_bad=len(rows),
            rows_skipped=0,
            part=f"part-{claim.shard_no}",
            part_bytes=500,
            bad=rows,
            seconds=ShardSeconds(read_s=0.1, decode_s=0.2, infer_s=0.5, write_s=0.1, bytes_read=900, wall_s=0.6),
        )
        assert self.ledger.completions.complete(claim, result).stored
        return True

    def finish(self) -> None:
        """Finalize the job that is due."""
        lease = self.ledger.finishes.lead(WORKER, _LEASE_S)
        assert lease is not None
        assert self.ledger.finishes.finish(lease, JobState.SUCCEEDED, "etag")
