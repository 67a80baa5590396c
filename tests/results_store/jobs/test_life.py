"""Random lives of a job, against a model: no row is lost or done twice, whatever workers and people do."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import psycopg
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.results_store.jobs.examples import LEASE_S, ROWS, bad_row, new_job, slices

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claim, Claimant, InputFile, Order, Page, ShardResult, Slice

RUNS = itertools.count()
SHARDS = 3

LIVE = (JobState.PLANNING, JobState.RUNNING)


class Outcome(NamedTuple):
    """How a worker ends with a shard. part: how much of it is done. bad: how many of these rows are bad, at most."""

    part: float
    bad: int


outcomes = st.builds(Outcome, st.sampled_from([1.0, 0.6, 0.1]), st.integers(0, 3))


class LifeOfAJob(RuleBasedStateMachine):
    """Workers that claim, die, stop and come back as zombies, and a person who pauses, cancels and retries.

    `done` is the truth: which rows succeeded or were bad, as the workers whose completion was accepted saw it.
    """

    ledger: Ledger
    store: psycopg.Connection

    def __init__(self) -> None:
        super().__init__()
        model = f"life-{next(RUNS)}"
        self.worker = Claimant(worker="w", models=(model,))
        self.job, _ = self.ledger.jobs.create(new_job(model=model))
        lease = self.ledger.plans.lead(self.worker, LEASE_S, 100)
        assert lease is not None
        file = InputFile(file_no=0, uri="/in/a", format="csv", size=1, rows=SHARDS * ROWS)
        self.ledger.plans.add_page(lease, Page(files=[file], slices=slices(SHARDS), done=True))
        self.claims: list[Claim] = []
        self.zombies: list[Claim] = []
        self.good: set[int] = set()
        self.bad: set[int] = set()
        self.most = 0

    def state(self) -> JobState:
        return self.ledger.jobs.get(self.job.id).state

    @rule()
    def claim(self) -> None:
        state = self.state()
        claim = self.ledger.claims.claim(self.worker, LEASE_S)
        if claim is None:
            return
        assert state in LIVE
        for zombie in [each for each in self.claims if each.shard_no == claim.shard_no]:
            self.claims.remove(zombie)
            self.zombies.append(zombie)
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        rows = data.draw(st.integers(0, self.width(claim)))
        order = self.ledger.running.heartbeat(claim, LEASE_S, rows).order
        expected = {JobState.PAUSED: Order.PAUSE, JobState.CANCELLING: Order.CANCEL, JobState.CANCELLED: Order.CANCEL}
        assert order is expected.get(self.state(), Order.GO_ON)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.store.execute(
            "UPDATE headrace_job_shards SET lease_until = now() - interval '1 second'"
            " WHERE job_id = %s AND shard_no = %s AND state = 1",
            (claim.job.id, claim.shard_no),
        )
        self.claims.remove(claim)
        self.zombies.append(claim)

    @precondition(lambda self: self.zombies)
    @rule(data=st.data(), outcome=outcomes)
    def zombie_comes_back(self, data: st.DataObject, outcome: Outcome) -> None:
        """A worker that was away completes its shard, which counts if nobody has taken the shard meanwhile."""
        claim = data.draw(st.sampled_from(self.zombies))
        self.zombies.remove(claim)
        self.complete(claim, outcome)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), outcome=outcomes)
    def complete_one(self, data: st.DataObject, outcome: Outcome) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        assert self.complete(claim, outcome)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        assert self.ledger.running.release(claim)

    @rule(bad=st.integers(0, 3))
    def work_off(self, bad: int) -> None:
        """All that waits is done."""
        while (claim := self.ledger.claims.claim(self.worker, LEASE_S)) is not None:
            for zombie in [each for each in self.claims if each.shard_no == claim.shard_no]:
                self.claims.remove(zombie)
                self.zombies.append(zombie)
            assert self.complete(claim, Outcome(1.0, bad))

    @precondition(lambda self: self.claims)
    @rule(outcome=outcomes)
    def all_complete(self, outcome: Outcome) -> None:
        for claim in self.claims:
            assert self.complete(claim, outcome)
        self.claims.clear()

    @rule(action=st.sampled_from(["pause", "resume", "cancel"]))
    def person_acts(self, action: str) -> None:
        allowed = {
            "pause": (*LIVE, JobState.PAUSED),
            "resume": (*LIVE, JobState.PAUSED, JobState.CANCELLED),
            "cancel": (*LIVE, JobState.PAUSED, JobState.CANCELLING, JobState.CANCELLED),
        }
        if self.state() in allowed[action]:
            getattr(self.ledger.control, action)(self.job.id)

    @rule()
    def sweep(self) -> None:
        self.ledger.sweep([self.worker.models[0]])

    @rule()
    def finish_and_retry(self) -> None:
        lease = self.ledger.finishes.lead(self.worker, LEASE_S)
        if lease is None:
            return
        if lease.job.state is JobState.FINALIZING:
            assert self.ledger.finishes.sums(lease).mismatch() == ""
            assert self.good | self.bad == set(range(SHARDS * ROWS))
            assert [error.row for error in self.ledger.finishes.errors(self.job.id)] == sorted(self.bad)
        assert self.ledger.finishes.finish(lease, JobState.SUCCEEDED)
        if lease.job.state is JobState.FINALIZING:
            assert self.ledger.control.retry(self.job.id) == len(self.bad)

    def width(self, claim: Claim) -> int:
        return len(claim.only) if claim.retry else claim.slice.rows

    def complete(self, claim: Claim, outcome: Outcome) -> bool:
        rows = [row for _, row in claim.only] if claim.retry else [*range(claim.slice.row_start, self.end(claim))]
        cut = math.ceil(outcome.part * len(rows))
        done = rows[:cut]
        bad = set(done[:: max(1, len(done) // outcome.bad)][: outcome.bad]) if outcome.bad else set()
        rest = self.rest(claim, rows[cut]) if cut < len(rows) else None
        result = ShardResult(
            rows_ok=len(done) - len(bad),
            rows_bad=len(bad),
            rows_skipped=0,
            bad=[bad_row(row) for row in sorted(bad)],
            rest=rest,
        )
        if not self.ledger.completions.complete(claim, result).stored:
            event("a zombie's completion was refused")
            return False
        event(
            f"completed, retry {min(2, claim.retry)}, {'stopped' if rest else 'whole'}, deaths {min(2, claim.deaths)}"
        )
        good = set(done) - bad
        assert not good & self.good
        if claim.retry:
            assert set(done) <= self.bad
        self.good |= good
        self.bad = (self.bad - good) | bad
        return True

    def end(self, claim: Claim) -> int:
        return claim.slice.row_start + claim.slice.rows

    def rest(self, claim: Claim, first: int) -> Slice:
        size = claim.slice.size_bytes * (self.end(claim) - first) // max(1, claim.slice.rows)
        return Slice(file_no=0, row_start=first, rows=self.end(claim) - first, size_bytes=size, est_s=0.5)

    @invariant()
    def counts_are_those_of_the_truth(self) -> None:
        progress = self.ledger.progress.of(self.job.id)
        assert (progress.rows_ok, progress.rows_bad) == (len(self.good), len(self.bad))
        assert progress.rows_done <= SHARDS * ROWS
        assert progress.bytes_done <= SHARDS * 1000
        assert progress.rows_done >= self.most
        self.most = progress.rows_done


def test_no_row_is_lost_or_done_twice_whatever_happens(store_url: str, store: psycopg.Connection) -> None:
    with Ledger(store_url) as ledger:
        life: type[Any] = type("Life", (LifeOfAJob,), {"ledger": ledger, "store": store})
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
        run_state_machine_as_test(
            life,
            settings=settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=checks),
        )
