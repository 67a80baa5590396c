from __future__ import annotations

import uuid

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, MODEL, WORKER, claimed, new_job, result

from headrace.contracts.jobs import JobState, Ticket
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.sweeping import PLAN, Load, tickets_to_send

JOB = uuid.UUID(int=7)


def load(claimable: int = 0, running: int = 0, leaderless: int = 0) -> Load:
    shards = [(JOB, number) for number in range(claimable)]
    return Load(model=MODEL, running=running, claimable=shards, leaderless=[JOB] * leaderless)


def test_nothing_waits_where_there_is_no_job(ledger: Ledger) -> None:
    assert ledger.sweep() == []


def test_a_shard_whose_worker_is_gone_is_claimable(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    claimed(ledger, lease_s=-1)
    (found,) = ledger.sweep()
    assert (found.running, found.claimable) == (0, [(job.id, 0), (job.id, 1)])


def test_a_job_that_nobody_plans_or_finalizes_is_leaderless(ledger: Ledger, make_job: MakeJob) -> None:
    job, _ = ledger.jobs.create(new_job())
    assert ledger.sweep()[0].leaderless == [job.id]
    lease = ledger.plans.lead(WORKER, LEASE_S, 10)
    assert lease is not None
    assert ledger.sweep()[0].leaderless == []
    ledger.plans.give_up(lease)
    ledger.control.cancel(job.id)
    assert ledger.sweep()[0].leaderless == [job.id]
    empty = make_job(0, path="/in/none")
    assert ledger.sweep()[0].leaderless == [job.id, empty.id]


def test_a_job_whose_last_worker_died_after_it_completed_the_last_shard_is_finalized(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job(1)
    ledger.completions.complete(claimed(ledger), result())
    store.execute("UPDATE headrace_jobs SET state = 'running'")
    ledger.sweep()
    assert ledger.jobs.get(job.id).state is JobState.FINALIZING


def test_paused_jobs_want_no_tickets_and_bounded_ones_no_more_than_may_run(ledger: Ledger, make_job: MakeJob) -> None:
    paused = make_job(3, path="/in/paused")
    ledger.control.pause(paused.id)
    bounded = make_job(5, path="/in/bounded", workers=2)
    claimed(ledger)
    (found,) = ledger.sweep()
    assert found.claimable == [(bounded.id, 1)]


def test_the_most_urgent_job_comes_first_and_other_models_are_left_out(ledger: Ledger, make_job: MakeJob) -> None:
    low, high = make_job(1, path="/in/low"), make_job(1, path="/in/high", priority=9)
    make_job(1, path="/in/x", model="other")
    (found,) = ledger.sweep([MODEL])
    assert found.claimable == [(high.id, 0), (low.id, 0)]
    assert {each.model for each in ledger.sweep()} == {MODEL, "other"}


def test_tickets_for_plans_go_first() -> None:
    assert tickets_to_send(load(2, leaderless=1), queued=0, workers=1) == [
        Ticket(job=str(JOB), shard=PLAN),
        Ticket(job=str(JOB), shard=0),
    ]


@given(*(st.integers(0, 50) for _ in range(5)))
def test_there_are_never_more_tickets_than_the_window_nor_fewer_than_are_needed(
    claimable: int, running: int, leaderless: int, queued: int, workers: int
) -> None:
    sent = tickets_to_send(load(claimable, running, leaderless), queued, workers)
    window = 2 * max(1, workers) + running
    assert len(set(sent)) == len(sent) - max(0, sum(ticket.shard == PLAN for ticket in sent) - 1)
    assert len(sent) <= claimable + leaderless
    if sent:
        assert queued + len(sent) <= window
    if claimable + leaderless and not queued:
        assert sent


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_a_sweep_that_finds_what_the_last_one_sent_sends_nothing(claimable: int, running: int, workers: int) -> None:
    now = load(claimable, running)
    sent = tickets_to_send(now, running, workers)
    assert tickets_to_send(now, running + len(sent), workers) == []
