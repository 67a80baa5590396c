"""Everybody at once: nobody waits in a circle, and nothing depends on whose session it is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from tests.pgbouncer import PgBouncer
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, MODEL, ROWS, claimed, new_job, plan, result

from headrace.contracts.jobs import JobOptions, JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claim, Claimant, Page, Slice

SHARDS = 300


def work(url: str, name: int, stopped: threading.Event) -> None:
    """Claim, and complete in two pieces, give back or keep, until told to stop."""
    with Ledger(url) as mine:
        claimant = Claimant(worker=f"w{name}", models=(MODEL,))
        for turn in range(10**6):
            if stopped.is_set():
                return
            # Every third claim lapses at once, as if its worker was gone.
            claim = mine.claims.claim(claimant, -1.0 if turn % 3 == 0 else LEASE_S)
            if claim is None:
                stopped.wait(0.01)
            else:
                end(mine, claim, turn)


def end(ledger: Ledger, claim: Claim, turn: int) -> None:
    part = claim.slice
    ledger.running.heartbeat(claim, LEASE_S)
    if turn % 5 == 0:
        ledger.running.release(claim)
    elif turn % 2 and part.rows > 1:
        rest = Slice(file_no=0, row_start=part.row_start + 1, rows=part.rows - 1, size_bytes=part.size_bytes, est_s=1)
        ledger.completions.complete(claim, result(ok=0, bad=(part.row_start,), rest=rest))
    else:
        ledger.completions.complete(claim, result(ok=part.rows))


def meddle(url: str, claim: Claim, stopped: threading.Event) -> None:
    """Do all that people do to a job, over and over."""
    with Ledger(url) as mine:
        for turn in range(40):
            mine.control.pause(claim.job.id)
            mine.control.resume(claim.job.id)
            mine.sweep()
            mine.control.change(claim.job.id, JobOptions(workers=turn % 3))
            mine.control.cancel(claim.job.id)
            mine.sweep()
            while mine.jobs.get(claim.job.id).state is JobState.CANCELLING:
                mine.sweep()
            mine.control.resume(claim.job.id)
        mine.control.change(claim.job.id, JobOptions())
        stopped.set()


def test_people_workers_and_sweeps_never_wait_in_a_circle(
    store_url: str, ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job(SHARDS, done=False)  # so that it does not end before people are done with it
    first = claimed(ledger)
    ledger.running.release(first)
    stopped = threading.Event()
    with ThreadPoolExecutor(6) as threads:
        workers = [threads.submit(work, store_url, number, stopped) for number in range(5)]
        meddling = threads.submit(meddle, store_url, first, stopped)
        try:
            meddling.result(timeout=120)
        finally:
            stopped.set()
        for worker in workers:
            worker.result()
    store.execute("UPDATE headrace_job_shards SET lease_until = NULL, state = 0 WHERE state = 1")
    store.execute("UPDATE headrace_jobs SET leader_until = NULL")
    plan_lease = ledger.plans.lead(Claimant(worker="w", models=(MODEL,)), LEASE_S, 10**6)
    assert plan_lease is not None
    ledger.plans.add_page(plan_lease, Page(done=True))
    while ledger.jobs.get(job.id).state is JobState.RUNNING:
        end(ledger, claimed(ledger), 2)
    lease = ledger.finishes.lead(Claimant(worker="w", models=(MODEL,)), LEASE_S)
    assert lease is not None
    sums = ledger.finishes.sums(lease)
    assert (sums.mismatch(), sums.rows_in) == ("", SHARDS * ROWS)


def test_a_pooler_may_lend_another_session_to_each_transaction(postgres_uri: str, store_url: str) -> None:
    with PgBouncer(postgres_uri, pool_mode="transaction", default_pool_size=2) as pooler:
        url = pooler.url_of(store_url)
        with Ledger(url) as one, Ledger(url) as other:
            job, _ = one.jobs.create(new_job())
            plan(other, job, 4)
            for ledger in (one, other):
                claim = claimed(ledger)
                ledger.running.heartbeat(claim, LEASE_S, rows=5)
                ledger.completions.complete(claim, result(ok=99, bad=(claim.slice.row_start,)))
            one.control.cancel(job.id)
            assert other.control.retry(job.id) == 2
            while (last := other.claims.claim(Claimant(worker="w", models=(MODEL,)), LEASE_S)) is not None:
                state = one.completions.complete(last, result(ok=len(last.only) or ROWS)).state
            assert state is JobState.FINALIZING
            assert one.progress.of(job.id).rows_ok == 4 * ROWS
