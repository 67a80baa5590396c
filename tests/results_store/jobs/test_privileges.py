"""What a worker and a client need to be granted for bulk jobs, and no more."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.results_store.jobs.examples import LEASE_S, WORKER, claimed, new_job, plan, result

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.jobs import JobOptions, JobState
from headrace.results_store.jobs.ledger import Ledger

#: The same as in docs/security.md.
GRANTS = """
GRANT SELECT, INSERT, UPDATE ON headrace_jobs, headrace_job_files, headrace_job_shards TO {worker};
GRANT SELECT, INSERT, UPDATE ON headrace_job_workers TO {worker};
GRANT SELECT, INSERT, UPDATE, DELETE ON headrace_job_errors TO {worker};
GRANT SELECT, INSERT, UPDATE ON headrace_jobs, headrace_job_shards TO {client};
GRANT SELECT, UPDATE ON headrace_job_errors TO {client};
GRANT SELECT ON headrace_job_files, headrace_job_workers TO {client};
"""

LedgerOf = Callable[[str], Ledger]


@pytest.fixture
def ledger_of(store_url: str, store: psycopg.Connection) -> Iterator[LedgerOf]:
    """Returns a ledger whose user has what one of the roles is granted."""
    names = {role: f"headrace_{role}_{uuid.uuid4().hex}" for role in ("worker", "client")}
    for name in names.values():
        store.execute(f"CREATE ROLE {name}")
    store.execute(GRANTS.format(**names))
    ledgers = {
        role: Ledger(f"{store_url}{'&' if '?' in store_url else '?'}options=-c%20role%3D{name}")
        for role, name in names.items()
    }
    yield ledgers.__getitem__
    for ledger in ledgers.values():
        ledger.close()
    for name in names.values():
        store.execute(f"DROP OWNED BY {name}")
        store.execute(f"DROP ROLE {name}")


def test_the_privileges_are_enough_for_all_that_workers_and_clients_do(ledger_of: LedgerOf) -> None:
    worker, client = ledger_of("worker"), ledger_of("client")
    job, _ = client.jobs.create(new_job(workers=5, max_errors="50%"))
    plan(worker, job, 4)
    claim = claimed(worker)
    worker.running.heartbeat(claim, LEASE_S, rows=5)
    worker.running.mark_suspect(claim, (0, 5))
    worker.completions.complete(claim, result(ok=99, bad=(3,)))
    worker.running.release(claimed(worker))
    client.control.change(job.id, JobOptions(priority=3))
    client.control.pause(job.id)
    client.control.resume(job.id)
    client.control.cancel(job.id)
    assert client.control.retry(job.id) == 1
    while (last := worker.claims.claim(WORKER, LEASE_S)) is not None:
        worker.completions.complete(last, result(ok=len(last.only) or 100))
    worker.sweep()
    lease = worker.finishes.lead(WORKER, LEASE_S)
    assert lease is not None
    assert worker.finishes.sums(lease).mismatch() == ""
    assert worker.finishes.parts(job.id)
    assert worker.finishes.finish(lease, JobState.SUCCEEDED)
    assert client.progress.of(job.id).rows_ok == 400
    assert client.finishes.errors(job.id) == []
    assert client.jobs.files(job.id)
    client.control.forget(job.id)
    assert client.jobs.create(new_job())[1]


def test_a_client_adds_no_input_files(ledger_of: LedgerOf) -> None:
    client = ledger_of("client")
    job, _ = client.jobs.create(new_job())
    with pytest.raises(ConfigurationError, match="lacks a privilege"):
        plan(client, job, 1)
