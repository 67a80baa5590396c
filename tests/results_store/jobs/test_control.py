from __future__ import annotations

import uuid

import psycopg
import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, WORKER, claimed, new_job, result

from headrace.contracts.jobs import JobOptions, JobState
from headrace.results_store.jobs.control import WrongState
from headrace.results_store.jobs.job_store import UnknownJob
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Order, ShardResult, Slice


def finish(ledger: Ledger, state: JobState = JobState.SUCCEEDED) -> None:
    lease = ledger.finishes.lead(WORKER, LEASE_S)
    assert lease is not None
    assert ledger.finishes.finish(lease, state, "etag")


def done(ledger: Ledger, *results: ShardResult) -> None:
    for each in results:
        ledger.completions.complete(claimed(ledger), each)


def test_a_job_that_is_paused_goes_on_where_it_was(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(3)
    done(ledger, result())
    ledger.control.pause(job.id)
    ledger.control.pause(job.id)
    assert ledger.jobs.get(job.id).state is JobState.PAUSED
    assert ledger.control.resume(job.id) is JobState.RUNNING
    assert ledger.control.resume(job.id) is JobState.RUNNING
    assert claimed(ledger).shard_no == 1


def test_a_job_that_was_paused_while_it_was_planned_is_planned_further(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(3, done=False)
    ledger.control.pause(job.id)
    assert ledger.control.resume(job.id) is JobState.PLANNING


def test_a_job_whose_last_shard_ended_while_it_was_paused_is_finalized_when_it_goes_on(
    ledger: Ledger, make_job: MakeJob
) -> None:
    job = make_job(1)
    claim = claimed(ledger)
    ledger.control.pause(job.id)
    assert ledger.completions.complete(claim, result()).state is JobState.PAUSED
    assert ledger.control.resume(job.id) is JobState.FINALIZING


def test_a_job_that_is_cancelled_while_nothing_runs_is_cancelled_at_once(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(3)
    done(ledger, result())
    assert ledger.control.cancel(job.id) is JobState.CANCELLED
    assert ledger.control.cancel(job.id) is JobState.CANCELLED
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    progress = ledger.progress.of(job.id)
    assert (progress.rows_ok, progress.shards_dropped, progress.job.finished_at is not None) == (100, 2, True)


def test_a_job_is_cancelling_until_its_last_shard_has_stopped(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(3)
    first, second, third = (claimed(ledger) for _ in range(3))
    assert ledger.control.cancel(job.id) is JobState.CANCELLING
    assert ledger.running.heartbeat(first, LEASE_S).order is Order.CANCEL
    assert ledger.running.cancel_shard(first)
    assert ledger.completions.complete(second, result()).state is JobState.CANCELLING
    assert ledger.running.release(third)
    assert ledger.jobs.get(job.id).state is JobState.CANCELLED


def test_a_cancelled_job_waits_for_no_worker_that_is_gone(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    zombie = claimed(ledger, lease_s=-1)
    claim = claimed(ledger)
    ledger.control.cancel(job.id)
    ledger.running.release(claim)
    assert ledger.jobs.get(job.id).state is JobState.CANCELLED
    assert not ledger.completions.complete(zombie, result()).stored


def test_a_cancelled_job_whose_worker_dies_later_is_settled_by_the_sweep(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job(1)
    claimed(ledger)
    ledger.control.cancel(job.id)
    store.execute("UPDATE headrace_job_shards SET lease_until = now() - interval '1 second'")
    ledger.sweep()
    assert ledger.jobs.get(job.id).state is JobState.CANCELLED


def test_a_cancelled_job_goes_on_with_what_is_missing(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(3)
    done(ledger, result(ok=99, bad=(4,)))
    ledger.control.cancel(job.id)
    assert ledger.control.resume(job.id) is JobState.RUNNING
    done(ledger, result(), result())
    finish(ledger)
    progress = ledger.progress.of(job.id)
    assert (progress.rows_ok, progress.rows_bad, progress.job.state) == (299, 1, JobState.SUCCEEDED)


def test_bad_rows_of_a_job_are_retried_and_no_others(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    done(ledger, result(ok=98, bad=(3, 7)), result(ok=99, bad=(150,)))
    finish(ledger)
    assert ledger.control.retry(job.id) == 3
    first = claimed(ledger)
    assert (first.shard_no, first.retry, first.only, first.slice.row_start) == (2, 1, [(0, 3), (0, 7)], 0)
    ledger.completions.complete(first, result(ok=1, bad=(7,)))
    second = claimed(ledger)
    assert (second.only, second.slice.row_start) == ([(0, 150)], 100)
    assert ledger.completions.complete(second, result(ok=1)).state is JobState.FINALIZING
    progress = ledger.progress.of(job.id)
    assert (progress.rows_ok, progress.rows_bad, progress.rows_done, progress.rows_total) == (199, 1, 200, 200)
    assert [(error.row, error.retry) for error in ledger.finishes.errors(job.id)] == [(7, 1)]
    finish(ledger)
    assert ledger.control.retry(job.id) == 1
    assert claimed(ledger).only == [(0, 7)]


def test_a_retry_that_stops_half_way_leaves_the_other_bad_rows_to_a_shard_of_their_own(
    ledger: Ledger, make_job: MakeJob
) -> None:
    job = make_job(1)
    done(ledger, result(ok=96, bad=(3, 7, 50, 60)))
    finish(ledger)
    ledger.control.retry(job.id)
    rest = Slice(file_no=0, row_start=50, rows=50)
    ledger.completions.complete(claimed(ledger), result(ok=1, bad=(7,), rest=rest))
    again = claimed(ledger)
    assert (again.only, again.retry, again.slice) == ([(0, 50), (0, 60)], 1, rest)
    assert ledger.completions.complete(again, result(ok=2)).state is JobState.FINALIZING
    lease = ledger.finishes.lead(WORKER, LEASE_S)
    assert lease is not None
    sums = ledger.finishes.sums(lease)
    assert (sums.mismatch(), sums.rows_bad, sums.rows_ok) == ("", 1, 99)
    assert job.id == lease.job.id


def test_a_retry_that_is_cancelled_and_retried_runs_each_bad_row_once(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(1)
    done(ledger, result(ok=98, bad=(3, 7)))
    finish(ledger)
    ledger.control.retry(job.id)
    ledger.control.cancel(job.id)
    assert ledger.control.retry(job.id) == 0
    assert claimed(ledger).only == [(0, 3), (0, 7)]
    assert ledger.claims.claim(WORKER, LEASE_S) is None


def test_a_job_without_bad_rows_is_finalized_again_at_once(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(1)
    done(ledger, result())
    finish(ledger)
    assert ledger.control.retry(job.id) == 0
    assert ledger.jobs.get(job.id).state is JobState.FINALIZING


def test_a_job_that_is_forgotten_can_be_created_anew_and_stays_as_history(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    done(ledger, result())
    ledger.control.forget(job.id)
    assert ledger.jobs.get(job.id).state is JobState.CANCELLED
    assert ledger.progress.of(job.id).rows_ok == 100
    fresh, created = ledger.jobs.create(new_job())
    assert created
    assert fresh.id != job.id
    assert ledger.jobs.with_key(fresh.spec.key()) == fresh


def test_options_change_while_a_job_runs(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(4, path="/in/first")
    job = make_job(4, path="/in/second")
    options = JobOptions(priority=9, weight=2.0, workers=1, max_errors="5", max_rows_per_s=50.0)
    ledger.control.change(job.id, options)
    assert ledger.jobs.get(job.id).options == options
    claim = claimed(ledger)
    assert claim.job.id == job.id
    assert claimed(ledger).job.id != job.id
    assert ledger.running.heartbeat(claim, LEASE_S).max_rows_per_s == 50.0


def test_the_bound_on_rows_a_second_is_shared_by_the_shards_that_run(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(2, max_rows_per_s=100.0)
    first, second = claimed(ledger), claimed(ledger)
    assert [ledger.running.heartbeat(claim, LEASE_S).max_rows_per_s for claim in (first, second)] == [50.0, 50.0]


def test_more_input_reopens_the_plan_of_a_job_that_has_ended(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(1)
    done(ledger, result())
    finish(ledger)
    ledger.control.reopen_plan(job.id)
    lease = ledger.plans.lead(WORKER, LEASE_S, 10)
    assert lease is not None
    assert (lease.cursor, lease.next_file) == (b"1", 1)


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("pause", ["finalizing", "succeeded", "failed", "cancelling", "cancelled"]),
        ("resume", ["finalizing", "succeeded", "cancelling"]),
        ("cancel", ["finalizing", "succeeded", "failed"]),
        ("retry", ["planning", "running", "paused", "finalizing", "cancelling"]),
        ("forget", ["finalizing"]),
        ("reopen_plan", ["finalizing", "cancelling"]),
    ],
)
def test_what_the_state_of_a_job_does_not_allow_is_refused(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob, action: str, states: list[str]
) -> None:
    job = make_job(1)
    claimed(ledger)
    for state in states:
        store.execute("UPDATE headrace_jobs SET state = %s", (state,))
        with pytest.raises(WrongState, match=f"{job.id} is {state}"):
            getattr(ledger.control, action)(job.id)
        assert ledger.jobs.get(job.id).state == state


@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "retry", "forget", "reopen_plan"])
def test_a_job_that_does_not_exist_is_unknown(ledger: Ledger, action: str) -> None:
    with pytest.raises(UnknownJob):
        getattr(ledger.control, action)(uuid.uuid4())
