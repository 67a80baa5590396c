from __future__ import annotations

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, MODEL, ROWS, WORKER, claimed, new_job, plan, result, slices

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claimant, Order

#: Lapses at once.
AT_ONCE = -1.0


def worker(name: str, *models: str, **more: object) -> Claimant:
    return Claimant(worker=name, models=models or (MODEL,), **more)  # type: ignore[arg-type]


def test_a_job_of_one_shard_goes_from_its_claim_to_finalizing(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    assert job.state is JobState.RUNNING
    claim = claimed(ledger)
    assert (claim.shard_no, claim.attempt, claim.deaths, claim.suspect) == (0, 1, 0, None)
    assert claim.job.id == job.id
    assert claim.slice == slices(1)[0]
    assert [file.uri for file in claim.files] == ["/in/a.parquet"]
    completion = ledger.completions.complete(claim, result(ok=97, bad=(5,), skipped=2))
    assert (completion.stored, completion.state) == (True, JobState.FINALIZING)
    assert ledger.claims.claim(WORKER, LEASE_S) is None


def test_a_job_without_rows_is_finalized_as_soon_as_it_is_planned(ledger: Ledger, make_job: MakeJob) -> None:
    assert make_job(0).state is JobState.FINALIZING


def test_shards_are_claimed_in_the_order_of_the_input(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(5)
    assert [claimed(ledger).shard_no for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_worker_claims_only_for_models_and_packages_that_it_serves(ledger: Ledger, make_job: MakeJob) -> None:
    make_job()
    assert ledger.claims.claim(worker("w", "other"), LEASE_S) is None
    assert ledger.claims.claim(worker("w", packages=("cd" * 32,)), LEASE_S) is None
    assert ledger.claims.claim(worker("w", packages=("cd" * 32, "ab" * 32)), LEASE_S) is not None


def test_the_highest_priority_goes_first(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(2, path="/in/low")
    high = make_job(2, path="/in/high", priority=5)
    assert [claimed(ledger).job.id == high.id for _ in range(4)] == [True, True, False, False]


def test_jobs_share_by_weight(ledger: Ledger, make_job: MakeJob) -> None:
    light, heavy = make_job(40, path="/in/light"), make_job(40, path="/in/heavy", weight=3.0)
    served: Counter[object] = Counter()
    for _ in range(40):
        claim = claimed(ledger)
        served[claim.job.id] += 1
        ledger.completions.complete(claim, result())
    assert 9 <= served[light.id] <= 11
    assert served[heavy.id] == 40 - served[light.id]


def test_a_job_that_comes_later_shares_from_then_on(ledger: Ledger, make_job: MakeJob) -> None:
    old = make_job(60, path="/in/old")
    for _ in range(20):
        ledger.completions.complete(claimed(ledger), result())
    make_job(60, path="/in/new")
    served: Counter[bool] = Counter()
    for _ in range(20):
        claim = claimed(ledger)
        served[claim.job.id == old.id] += 1
        ledger.completions.complete(claim, result())
    assert 9 <= served[True] <= 11


def test_no_more_shards_run_than_the_job_allows(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(5, workers=2)
    first, _second = claimed(ledger), claimed(ledger)
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    ledger.completions.complete(first, result())
    assert claimed(ledger).shard_no == 2


def test_nothing_is_claimed_ahead_when_others_would_wait_for_it(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(4)
    for name in "ab":
        claimed(ledger, worker(name))
    ahead = ledger.claims.claim(worker("a"), LEASE_S, {MODEL: 2})
    assert ahead is not None
    assert ledger.claims.claim(worker("b"), LEASE_S, {MODEL: 2}) is None
    assert ledger.claims.claim(worker("c"), LEASE_S) is not None


def test_workers_that_have_nothing_yet_are_left_enough(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(4)
    claimed(ledger, worker("a"))
    assert ledger.claims.claim(worker("a"), LEASE_S, {MODEL: 4}) is None
    assert ledger.claims.claim(worker("a"), LEASE_S, {MODEL: 3}) is not None


def test_a_paused_job_is_not_claimed_from(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job(2)
    claim = claimed(ledger)
    assert ledger.running.heartbeat(claim, LEASE_S).order is Order.GO_ON
    ledger.control.pause(job.id)
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    assert ledger.running.heartbeat(claim, LEASE_S).order is Order.PAUSE


def test_a_shard_whose_worker_is_gone_is_claimed_by_another_and_counts_a_death(
    ledger: Ledger, other: Ledger, make_job: MakeJob
) -> None:
    make_job(2)
    dead = claimed(ledger, lease_s=AT_ONCE)
    assert ledger.running.mark_suspect(dead, (32, 64))
    again = claimed(other)
    assert (again.shard_no, again.attempt, again.deaths, again.suspect) == (0, 2, 1, (32, 64))


def test_a_zombie_changes_nothing(ledger: Ledger, other: Ledger, make_job: MakeJob) -> None:
    make_job()
    zombie = claimed(ledger, lease_s=AT_ONCE)
    owner = claimed(other)
    assert ledger.running.heartbeat(zombie, LEASE_S).order is Order.LOST
    assert not ledger.running.mark_suspect(zombie, (0, 1))
    assert not ledger.running.release(zombie)
    assert not ledger.running.cancel_shard(zombie)
    assert not ledger.running.fail_job(zombie, "no")
    assert not ledger.completions.complete(zombie, result(ok=99, bad=(3,))).stored
    assert other.running.heartbeat(owner, LEASE_S).order is Order.GO_ON
    assert other.completions.complete(owner, result()).stored
    assert not ledger.completions.complete(zombie, result()).stored
    assert ledger.progress.of(owner.job.id).rows_ok == ROWS


def test_a_worker_that_did_not_hear_that_it_completed_a_shard_completes_it_again_without_effect(
    ledger: Ledger, make_job: MakeJob
) -> None:
    make_job(2)
    claim = claimed(ledger)
    for _ in range(2):
        assert ledger.completions.complete(claim, result(ok=99, bad=(3,))).stored
    assert ledger.progress.of(claim.job.id).rows_ok == 99


def test_many_workers_at_once_claim_every_shard_once(store_url: str, ledger: Ledger) -> None:
    jobs = [ledger.jobs.create(new_job(f"/in/{number}"))[0] for number in range(4)]
    for job in jobs:
        plan(ledger, job, 100)
    start = threading.Barrier(16)

    def work(name: int) -> list[tuple[uuid.UUID, int]]:
        done: list[tuple[uuid.UUID, int]] = []
        with Ledger(store_url) as mine:
            start.wait()
            while True:
                claim = mine.claims.claim(worker(f"w{name}"), LEASE_S)
                if claim is None:
                    return done
                assert mine.completions.complete(claim, result()).stored
                done.append((claim.job.id, claim.shard_no))

    with ThreadPoolExecutor(16) as threads:
        done = [each for part in threads.map(work, range(16)) for each in part]
    assert sorted(map(str, done)) == sorted(str((job.id, shard)) for job in jobs for shard in range(100))
    assert {ledger.jobs.get(job.id).state for job in jobs} == {JobState.FINALIZING}


def test_a_bound_on_workers_holds_when_all_claim_at_once(store_url: str, make_job: MakeJob) -> None:
    make_job(32, workers=3)
    start = threading.Barrier(8)

    def work(name: int) -> bool:
        with Ledger(store_url) as mine:
            start.wait()
            return mine.claims.claim(worker(f"w{name}"), LEASE_S) is not None

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 3


@pytest.mark.parametrize("stop", ["pause", "cancel"])
def test_a_worker_that_is_told_to_stop_leaves_the_rest_as_a_shard_of_its_own(
    ledger: Ledger, make_job: MakeJob, stop: str
) -> None:
    job = make_job()
    claim = claimed(ledger)
    ledger.running.heartbeat(claim, LEASE_S, rows=60)
    getattr(ledger.control, stop)(job.id)
    rest = slices(1)[0].__class__(file_no=0, row_start=60, rows=40, size_bytes=400, est_s=0.4)
    assert ledger.completions.complete(claim, result(ok=60, rest=rest)).stored
    assert ledger.progress.of(job.id).rows_ok == 60
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    ledger.control.resume(job.id)
    again = claimed(ledger)
    assert (again.shard_no, again.slice) == (1, rest)
    assert ledger.completions.complete(again, result(ok=40)).state is JobState.FINALIZING


def test_shards_of_a_process_that_died_are_claimed_when_its_successor_begins(
    ledger: Ledger, other: Ledger, make_job: MakeJob
) -> None:
    make_job(4)
    name = WORKER.worker
    earlier = claimed(ledger, worker(name, process="gone"))
    alive = claimed(ledger, worker(name, process="alive"))
    unknown = claimed(ledger, worker(name))
    beside = claimed(ledger, worker("another", process="also gone"))
    assert other.running.lapse(name, {"gone", "also gone", ""}.__contains__) == 1
    again = claimed(other)
    assert (again.shard_no, again.attempt, again.deaths) == (earlier.shard_no, 2, 1)
    assert ledger.running.heartbeat(earlier, LEASE_S).order is Order.LOST
    for claim in (alive, unknown, beside):
        assert ledger.running.heartbeat(claim, LEASE_S).order is Order.GO_ON
