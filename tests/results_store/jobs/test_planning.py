from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from tests.results_store.jobs.examples import LEASE_S, MODEL, ROWS, WORKER, claimed, new_job, result, slices

from headrace.contracts.errors import HeadraceError
from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claimant, InputFile, Page, PlanLease, Slice

WANTED = 10


def file(number: int, rows: int = -1) -> InputFile:
    return InputFile(file_no=number, uri=f"s3://in/{number} ü.csv", format="csv", size=10**12, etag='"e"', rows=rows)


def led(ledger: Ledger, lease_s: float = LEASE_S) -> PlanLease:
    lease = ledger.plans.lead(WORKER, lease_s, WANTED)
    assert lease is not None
    return lease


def test_a_job_is_planned_in_pages_and_its_first_shards_run_meanwhile(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = led(ledger)
    assert (lease.job.id, lease.cursor, lease.next_file) == (job.id, b"", 0)
    assert ledger.plans.add_page(lease, Page(files=[file(0)], slices=slices(2), cursor=b"page 1"))
    assert [claimed(ledger).shard_no for _ in range(2)] == [0, 1]
    assert ledger.plans.add_page(lease, Page(files=[file(1)], slices=slices(2, file_no=1), cursor=b"2", done=True))
    third = claimed(ledger)
    assert (third.shard_no, third.slice.file_no, third.files) == (2, 1, [file(1)])
    assert ledger.jobs.get(job.id).state is JobState.RUNNING


def test_another_worker_goes_on_where_the_last_page_ended(ledger: Ledger, other: Ledger) -> None:
    ledger.jobs.create(new_job())
    first = led(ledger)
    assert ledger.plans.add_page(first, Page(files=[file(0), file(1)], slices=slices(2), cursor=b"page 1"))
    assert other.plans.lead(WORKER, LEASE_S, WANTED) is None
    ledger.plans.give_up(first)
    second = led(other)
    assert (second.cursor, second.next_file, second.pace.pending) == (b"page 1", 2, 2)


def test_who_lost_the_lease_plans_nothing(ledger: Ledger, other: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    late = led(ledger, lease_s=-1)
    lease = led(other)
    assert not ledger.plans.add_page(late, Page(slices=slices(1)))
    assert not ledger.plans.renew(late)
    assert not ledger.plans.fail(late, "no")
    ledger.plans.give_up(late)
    assert other.plans.renew(lease)
    assert other.plans.add_page(lease, Page(slices=slices(1), done=True))
    assert not other.plans.add_page(lease, Page(slices=slices(1), done=True))
    assert ledger.progress.of(job.id).shards_waiting == 1


def test_a_job_with_enough_shards_is_not_planned_further_until_some_are_claimed(ledger: Ledger) -> None:
    ledger.jobs.create(new_job())
    lease = led(ledger)
    ledger.plans.add_page(lease, Page(slices=slices(WANTED)))
    ledger.plans.give_up(lease)
    assert ledger.plans.lead(WORKER, LEASE_S, WANTED) is None
    claimed(ledger)
    assert led(ledger).pace.pending == WANTED - 1


def test_only_workers_that_serve_the_model_plan_its_jobs(ledger: Ledger) -> None:
    ledger.jobs.create(new_job())
    assert ledger.plans.lead(Claimant(worker="w", models=("other",)), LEASE_S, WANTED) is None
    assert ledger.plans.lead(Claimant(worker="w", models=(MODEL,), packages=("no",)), LEASE_S, WANTED) is None


def test_one_of_many_workers_leads_each_job(store_url: str, ledger: Ledger) -> None:
    for number in range(3):
        ledger.jobs.create(new_job(f"/in/{number}"))
    start = threading.Barrier(8)

    def lead(_: int) -> object:
        with Ledger(store_url) as mine:
            start.wait()
            lease = mine.plans.lead(WORKER, LEASE_S, WANTED)
            return lease and lease.job.id

    with ThreadPoolExecutor(8) as threads:
        jobs = [each for each in threads.map(lead, range(8)) if each]
    # A lock that another holds at this moment is passed over; nobody waits, and nobody gets the same.
    assert len(jobs) == len(set(jobs))
    assert jobs


def test_a_job_that_is_paused_or_cancelled_is_planned_no_further(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = led(ledger)
    ledger.control.pause(job.id)
    assert not ledger.plans.add_page(lease, Page(slices=slices(1)))
    ledger.control.cancel(job.id)
    assert not ledger.plans.add_page(lease, Page(slices=slices(1)))
    assert ledger.jobs.get(job.id).state is JobState.CANCELLED


def test_a_job_that_cannot_be_planned_fails_with_the_cause(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    assert ledger.plans.fail(led(ledger), "/in/a.parquet is not on worker host-1;\x00 use a shared folder")
    failed = ledger.jobs.get(job.id)
    assert (failed.state, failed.finished_at is not None) == (JobState.FAILED, True)
    assert "not on worker host-1" in failed.error
    ledger.control.resume(job.id)
    assert ledger.jobs.get(job.id).error == ""
    assert led(ledger).job.id == job.id


def test_the_planner_hears_the_pace(ledger: Ledger) -> None:
    ledger.jobs.create(new_job())
    lease = led(ledger)
    assert lease.pace.rows_per_s == 0
    ledger.plans.add_page(lease, Page(slices=slices(3)))
    ledger.plans.give_up(lease)
    for _ in range(2):
        ledger.completions.complete(claimed(ledger), result())
    claimed(ledger)
    pace = led(ledger).pace
    assert round(pace.rows_per_s) == round(2 * ROWS / 1.2)
    assert round(pace.bytes_per_s) == round(2000 / 1.2)
    assert (pace.shards, pace.pending, pace.running, pace.workers) == (2, 0, 1, 1)


def test_files_that_are_counted_later_get_their_rows(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = led(ledger)
    ledger.plans.add_page(lease, Page(files=[file(0), file(1)]))
    ledger.plans.add_page(lease, Page(files=[file(0, rows=7)], done=True))
    assert [each.rows for each in ledger.jobs.files(job.id)] == [7, -1]


def test_nobody_knows_the_rows_of_a_job_with_a_slice_that_was_not_counted(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = led(ledger)
    ledger.plans.add_page(lease, Page(slices=slices(1)))
    ledger.plans.add_page(lease, Page(slices=[Slice(file_no=1, rows=-1, size_bytes=50)], done=True))
    progress = ledger.progress.of(job.id)
    assert (progress.rows_total, progress.bytes_total) == (None, 1050)


def test_a_page_is_added_whole_or_not_at_all(ledger: Ledger, store: psycopg.Connection) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = led(ledger)
    broken = Page(files=[file(0)], slices=[*slices(2), Slice(file_no=2**40)], cursor=b"1")
    with pytest.raises(HeadraceError, match="out of range"):
        ledger.plans.add_page(lease, broken)
    assert ledger.jobs.files(job.id) == []
    assert ledger.progress.of(job.id).shards_waiting == 0
    assert ledger.plans.add_page(lease, Page(files=[file(0)], slices=slices(2), cursor=b"1"))
    assert store.execute("SELECT next_shard FROM headrace_jobs").fetchone() == (2,)


def test_a_page_of_a_thousand_files_and_ten_thousand_shards_is_one_transaction(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    page = Page(files=[file(number) for number in range(1000)], slices=slices(10_000), done=True)
    assert ledger.plans.add_page(led(ledger), page)
    progress = ledger.progress.of(job.id)
    assert (progress.shards_waiting, progress.rows_total) == (10_000, 10_000 * ROWS)
