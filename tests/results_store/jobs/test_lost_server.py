"""Postgres is killed while workers complete shards: nothing that was stored is lost, and nothing counts twice."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
from tests.results_store.jobs.examples import LEASE_S, MODEL, ROWS, new_job, plan, result

from headrace.cli.stack.servers import Postgres
from headrace.contracts.errors import StoreUnavailable
from headrace.contracts.jobs import JobState
from headrace.results_store import BatchRows, Row, migrate
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claim, Claimant

SHARDS = 120
KILLS = 3


def rows_of(claim: Claim) -> list[BatchRows]:
    """Return the predictions of a shard; the ids follow from the job and the row."""
    first, job_id = claim.slice.row_start, claim.job.id
    rows = [
        Row(id=uuid.uuid5(job_id, str(row)), state="succeeded", job_id=str(job_id), row_index=row)
        for row in range(first, first + ROWS)
    ]
    return [BatchRows(model=MODEL, version="2", rows=rows, finished_at=time.time())]


def work(url: str, name: int, done: list[int], ended: threading.Event) -> None:
    """Complete shards until there are none, and repeat each call until it is answered."""
    with Ledger(url, timeout_s=5) as mine:
        claimant = Claimant(worker=f"w{name}", models=(MODEL,))
        claim: Claim | None = None
        while not ended.is_set():
            try:
                claim = claim or mine.claims.claim(claimant, 2.0)
                if claim is None:
                    ended.wait(0.05)
                elif mine.completions.complete(claim, result(), rows_of(claim)).stored:
                    done.append(claim.shard_no)
                claim = None
            except StoreUnavailable:
                ended.wait(0.05)


def test_completions_survive_the_death_of_the_server(own_server: Postgres) -> None:
    migrate(own_server.url)
    done: list[int] = []
    ended = threading.Event()
    with Ledger(own_server.url) as ledger, ThreadPoolExecutor(3) as threads:
        job, _ = ledger.jobs.create(new_job())
        plan(ledger, job, SHARDS)
        workers = [threads.submit(work, own_server.url, number, done, ended) for number in range(3)]
        try:
            for kill in range(1, KILLS + 1):
                while len(done) < SHARDS * kill // (KILLS + 1):
                    time.sleep(0.01)
                own_server.kill()
                own_server.start()
            while ledger.jobs.get(job.id).state is JobState.RUNNING:
                time.sleep(0.1)
        finally:
            ended.set()
        for worker in workers:
            worker.result()
        assert sorted(done) == list(range(SHARDS))
        lease = ledger.finishes.lead(Claimant(worker="w", models=(MODEL,)), LEASE_S)
        assert lease is not None
        sums = ledger.finishes.sums(lease)
        assert (sums.mismatch(), sums.rows_ok) == ("", SHARDS * ROWS)
        assert ledger.progress.of(job.id).rows_ok == SHARDS * ROWS
    with psycopg.connect(own_server.url) as store:
        found = store.execute("SELECT count(*), count(DISTINCT row_index) FROM predictions").fetchone()
    assert found == (SHARDS * ROWS, SHARDS * ROWS)
