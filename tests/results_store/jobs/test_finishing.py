from __future__ import annotations

import psycopg
import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, ROWS, WORKER, claimed, new_job, result, slices

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claimant, InputFile, Lease, Page, Slice


def led(ledger: Ledger, lease_s: float = LEASE_S) -> Lease:
    lease = ledger.finishes.lead(WORKER, lease_s)
    assert lease is not None
    return lease


def file(number: int, rows: int) -> InputFile:
    return InputFile(file_no=number, uri=f"/in/{number}", format="parquet", size=1, rows=rows)


def ended(ledger: Ledger, files: list[InputFile], parts: list[Slice]) -> Lease:
    """Plan and run a job of these files and slices."""
    ledger.jobs.create(new_job())
    lease = ledger.plans.lead(WORKER, LEASE_S, 10)
    assert lease is not None
    ledger.plans.add_page(lease, Page(files=files, slices=parts, done=True))
    for _ in parts:
        claim = claimed(ledger)
        ledger.completions.complete(claim, result(ok=claim.slice.rows))
    return led(ledger)


def test_a_job_ends_when_its_manifest_is_published(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    assert ledger.finishes.lead(WORKER, LEASE_S) is None
    ledger.completions.complete(claimed(ledger), result())
    lease = led(ledger)
    assert (lease.job.id, lease.job.state) == (job.id, JobState.FINALIZING)
    assert ledger.progress.of(job.id).share == 0.999
    assert ledger.finishes.finish(lease, JobState.SUCCEEDED, '"etag"')
    done = ledger.progress.of(job.id)
    assert (done.share, done.job.state, done.job.manifest_etag) == (1.0, JobState.SUCCEEDED, '"etag"')
    assert done.job.finished_at is not None
    assert ledger.finishes.lead(WORKER, LEASE_S) is None


def test_one_worker_finalizes_a_job_until_its_lease_has_passed(
    ledger: Ledger, other: Ledger, make_job: MakeJob
) -> None:
    make_job(0)
    lost = led(ledger, lease_s=-1)
    lease = led(other)
    assert ledger.finishes.lead(WORKER, LEASE_S) is None
    assert not ledger.finishes.renew(lost)
    assert not ledger.finishes.finish(lost, JobState.FAILED, error="no")
    assert other.finishes.renew(lease)
    assert other.finishes.finish(lease, JobState.SUCCEEDED)
    assert not other.finishes.finish(lease, JobState.FAILED)
    assert ledger.jobs.get(lease.job.id).error == ""


def test_a_lease_that_is_given_up_for_a_while_is_nobodys_meanwhile(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(0)
    lease = led(ledger)
    ledger.finishes.give_up(lease, delay_s=3600)
    assert ledger.finishes.lead(WORKER, LEASE_S) is None
    assert ledger.finishes.lead(Claimant(worker="w", models=("other",)), LEASE_S) is None


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_the_manifest_says_when_a_job_ended_without_success(ledger: Ledger, make_job: MakeJob, how: str) -> None:
    job = make_job(2)
    ledger.completions.complete(claimed(ledger), result())
    if how == "cancel":
        ledger.control.cancel(job.id)
    else:
        ledger.running.fail_job(claimed(ledger), "disk full; free some space")
    before = ledger.jobs.get(job.id)
    lease = led(ledger)
    assert lease.job == before
    assert ledger.finishes.finish(lease, JobState.SUCCEEDED, "etag")
    after = ledger.jobs.get(job.id)
    assert (after.state, after.error, after.finished_at) == (before.state, before.error, before.finished_at)
    assert after.manifest_etag == "etag"
    assert ledger.finishes.lead(WORKER, LEASE_S) is None


def test_parts_come_in_the_order_of_the_input_in_pages(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(5)
    claims = [claimed(ledger) for _ in range(5)]
    for claim in reversed(claims):
        ledger.completions.complete(claim, result(ok=99, skipped=1))
    first = ledger.finishes.parts(job.id, most=3)
    second = ledger.finishes.parts(job.id, after=first[-1], most=3)
    assert [part.slice for part in first + second] == slices(5)
    assert ledger.finishes.parts(job.id, after=second[-1]) == []
    assert (first[0].name, first[0].etag, first[0].bytes, first[0].rows_skipped) == ("part", "etag", 500, 1)


def test_bad_rows_come_in_pages(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    for first in (0, ROWS):
        ledger.completions.complete(claimed(ledger), result(ok=97, bad=(first + 1, first + 2, first + 3)))
    pages = [ledger.finishes.errors(job.id, most=4)]
    pages.append(ledger.finishes.errors(job.id, after=pages[0][-1], most=4))
    assert [[error.row for error in page] for page in pages] == [[1, 2, 3, 101], [102, 103]]


def test_all_rows_of_a_job_that_ran_as_planned_add_up(ledger: Ledger) -> None:
    files = [file(0, 30), file(1, 0), file(2, 10), file(3, 0)]
    parts = [Slice(file_no=0, rows=20), Slice(file_no=0, row_start=20, rows=10), Slice(file_no=2, rows=10)]
    sums = ledger.finishes.sums(ended(ledger, files, parts))
    assert (sums.rows_in, sums.rows_ok, sums.rows_files, sums.gaps, sums.mismatch()) == (40, 40, 40, 0, "")


@pytest.mark.parametrize(
    "parts",
    [
        [Slice(file_no=0, rows=20), Slice(file_no=0, row_start=21, rows=10)],
        [Slice(file_no=0, rows=20), Slice(file_no=0, row_start=19, rows=10)],
        [Slice(file_no=0, rows=20), Slice(file_no=0, rows=20)],
        [Slice(file_no=0, row_start=1, rows=20)],
        [Slice(file_no=0, rows=20), Slice(file_no=1, row_start=1, rows=10)],
        [Slice(file_no=0, rows=20), Slice(file_no=2, rows=10)],
        [Slice(file_no=1, rows=20)],
        [Slice(file_no=0, files=2, rows=20), Slice(file_no=1, rows=10)],
        [Slice(file_no=0, files=3, rows=20), Slice(file_no=1, rows=10)],
    ],
)
def test_a_place_that_is_missing_or_read_twice_is_found(ledger: Ledger, parts: list[Slice]) -> None:
    sums = ledger.finishes.sums(ended(ledger, [file(0, -1), file(1, -1), file(2, -1)], parts))
    assert sums.mismatch() == "1 places of the input were read twice or not at all"


def test_files_that_were_not_read_to_their_end_are_found(ledger: Ledger) -> None:
    sums = ledger.finishes.sums(ended(ledger, [file(0, 30)], [Slice(file_no=0, rows=20)]))
    assert sums.mismatch() == "the input has 30 rows, and 20 were read"


def test_rows_whose_error_was_lost_are_found(ledger: Ledger, store: psycopg.Connection, make_job: MakeJob) -> None:
    make_job()
    ledger.completions.complete(claimed(ledger), result(ok=98, bad=(1, 2)))
    store.execute("DELETE FROM headrace_job_errors WHERE row = 1")
    assert ledger.finishes.sums(led(ledger)).mismatch() == "2 rows were bad, and 1 are listed"


def test_counts_that_were_changed_are_found(ledger: Ledger, store: psycopg.Connection, make_job: MakeJob) -> None:
    make_job()
    ledger.completions.complete(claimed(ledger), result())
    store.execute("UPDATE headrace_job_shards SET rows_ok = 99")
    wanted = "100 rows went in, and 99 came out, as rows, bad rows or skipped ones"
    assert ledger.finishes.sums(led(ledger)).mismatch() == wanted


def test_a_shard_that_was_revoked_is_missing_in_the_end(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(2)
    ledger.running.cancel_shard(claimed(ledger))
    assert ledger.completions.complete(claimed(ledger), result()).state is JobState.FINALIZING
    assert ledger.finishes.sums(led(ledger)).mismatch() == "1 shards were dropped and did not run"
