from __future__ import annotations

import uuid

import psycopg
import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, WORKER, claimed, new_job, result, slices

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.job_store import UnknownJob
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claimant, Page, Slice

OTHER = Claimant(worker="w2@host", models=WORKER.models)


def test_a_job_that_was_just_created_has_done_nothing(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    progress = ledger.progress.of(job.id)
    assert (progress.rows_total, progress.rows_done, progress.share, progress.remaining_s) == (None, 0, None, None)
    assert (progress.workers, progress.rows_per_s) == ([], 0)


def test_progress_says_what_is_done_by_whom_and_how_fast(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(10)
    ledger.completions.complete(claimed(ledger), result(ok=95, bad=(1, 2), skipped=3))
    ledger.completions.complete(claimed(ledger, OTHER), result())
    running = claimed(ledger)
    ledger.running.heartbeat(running, LEASE_S, rows=50, wall_s=0.3)
    progress = ledger.progress.of(job.id)
    assert (progress.rows_ok, progress.rows_bad, progress.rows_skipped) == (195, 2, 3)
    assert (progress.rows_done, progress.rows_total, progress.share) == (250, 1000, 0.25)
    assert (progress.shards_done, progress.shards_running, progress.shards_waiting) == (2, 1, 7)
    assert (progress.bytes_done, progress.bytes_total, progress.bytes_read, progress.part_bytes) == (
        2500,
        10_000,
        1800,
        1000,
    )
    assert round(progress.rows_per_s) == round(200 / 1.2)
    assert [(each.worker, each.shards, each.running) for each in progress.workers] == [
        ("w1@host", 1, 1),
        ("w2@host", 1, 0),
    ]
    assert [round(getattr(progress.workers[0], f"{step}_s"), 3) for step in ("read", "decode", "infer", "write")] == [
        0.1,
        0.2,
        0.5,
        0.1,
    ]
    assert progress.remaining_s is not None
    low, high = progress.remaining_s
    assert 0 < low < 7.5 * 0.6 < high


def test_progress_never_goes_down_whatever_becomes_of_workers(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job(3)
    seen: list[tuple[int, float]] = []

    def look() -> None:
        progress = ledger.progress.of(job.id)
        assert progress.share is not None
        seen.append((progress.rows_done, progress.share))

    look()
    first = claimed(ledger)
    ledger.running.heartbeat(first, LEASE_S, rows=80)
    look()
    store.execute("UPDATE headrace_job_shards SET lease_until = now() - interval '1 second' WHERE state = 1")
    again = claimed(ledger)
    ledger.running.heartbeat(again, LEASE_S, rows=10)
    look()
    rest = Slice(file_no=0, row_start=20, rows=80, size_bytes=800, est_s=0.8)
    ledger.completions.complete(again, result(ok=20, rest=rest))
    look()
    ledger.running.release(claimed(ledger))
    look()
    ledger.control.pause(job.id)
    ledger.control.cancel(job.id)
    look()
    ledger.control.resume(job.id)
    look()
    ledger.completions.complete(claimed(ledger), result(ok=80))
    look()
    assert seen == sorted(seen)
    rows, share = seen[-1]
    assert rows == 100
    assert share == pytest.approx(1 / 3)


def test_a_job_is_not_done_before_it_has_succeeded(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(1)
    ledger.completions.complete(claimed(ledger), result())
    assert ledger.progress.of(job.id).share == 0.999


def test_a_job_of_no_rows_is_done_when_it_has_succeeded(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(0)
    assert ledger.progress.of(job.id).share == 0
    lease = ledger.finishes.lead(WORKER, LEASE_S)
    assert lease is not None
    ledger.finishes.finish(lease, JobState.SUCCEEDED)
    progress = ledger.progress.of(job.id)
    assert (progress.share, progress.rows_total) == (1.0, 0)


def test_the_share_is_known_while_a_job_is_planned_if_its_size_is(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease = ledger.plans.lead(WORKER, LEASE_S, 10)
    assert lease is not None
    ledger.plans.add_page(lease, Page(slices=slices(1), bytes_total=4000))
    ledger.plans.add_page(lease, Page(slices=slices(1, first=1)))
    ledger.completions.complete(claimed(ledger), result())
    progress = ledger.progress.of(job.id)
    assert (progress.share, progress.rows_total) == (0.25, None)
    assert progress.remaining_s is None  # nobody works
    claimed(ledger)
    assert ledger.progress.of(job.id).remaining_s is not None


def test_the_time_of_a_retry_is_told_by_what_its_shards_were_expected_to_take(
    ledger: Ledger, make_job: MakeJob
) -> None:
    job = make_job(2)
    for first in (0, 100):
        ledger.completions.complete(claimed(ledger), result(ok=99, bad=(first,)))
    lease = ledger.finishes.lead(WORKER, LEASE_S)
    assert lease is not None
    ledger.finishes.finish(lease, JobState.SUCCEEDED)
    ledger.control.retry(job.id)
    claimed(ledger)
    progress = ledger.progress.of(job.id)
    assert (progress.share, progress.rows_done) == (0.999, 200)
    assert progress.remaining_s is not None
    assert progress.remaining_s[1] > 0


def test_a_job_that_does_not_exist_is_unknown(ledger: Ledger) -> None:
    with pytest.raises(UnknownJob):
        ledger.progress.of(uuid.uuid4())


def test_the_plan_of_progress_reads_no_shard_that_has_ended(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job(5000)
    store.execute("UPDATE headrace_job_shards SET state = 2, finished_at = now() WHERE shard_no >= 10")
    store.execute("VACUUM ANALYZE headrace_job_shards")
    store.execute("SELECT pg_stat_reset()")
    ledger.progress.of(job.id)
    with psycopg.connect(store.info.dsn, autocommit=True) as fresh:
        ledger.close()
        fresh.execute("SELECT pg_sleep(0.2)")
        row = fresh.execute(
            "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
            " WHERE relname = 'headrace_job_shards'"
        ).fetchone()
    assert row is not None
    assert row[0] < 500
