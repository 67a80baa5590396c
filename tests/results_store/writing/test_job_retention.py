from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

import psycopg
import pytest

from headrace.contracts.ids import uuid7
from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.results_store import BatchRows, Row, StoreWriter, prune
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import BadRow, Claimant, InputFile, NewJob, Page, ShardResult, Slice
from headrace.results_store.writing import job_retention
from headrace.results_store.writing.partitions import ensure_partitions

DAY = dt.timedelta(days=1)
WORKER = Claimant(worker="w", models=("digits",))
TABLES = ("jobs", "job_files", "job_shards", "job_errors", "job_workers")


def job_of_long_ago(url: str, store: psycopg.Connection, days: int, path: str = "/in") -> uuid.UUID:
    """Make a job with a row of each kind that was created some days ago, and runs."""
    with Ledger(url) as ledger:
        spec = ScoreSpec(model="digits", inputs=(path,), output="store")
        job, _ = ledger.jobs.create(NewJob(spec=spec, options=JobOptions(), version="1", package_sha256="ab"))
        lease = ledger.plans.lead(WORKER, 60, 10)
        assert lease is not None
        file = InputFile(file_no=0, uri=path, format="csv", size=1)
        ledger.plans.add_page(lease, Page(files=[file], slices=[Slice(file_no=0, rows=1)] * 2, done=True))
        claim = ledger.claims.claim(WORKER, 60)
        assert claim is not None
        bad = BadRow(file_no=0, row=0, stage="read", type="X", message="")
        ledger.completions.complete(claim, ShardResult(rows_ok=0, rows_bad=1, rows_skipped=0, bad=[bad]))
    store.execute("UPDATE headrace_jobs SET created_at = now() - %s * interval '1 day' WHERE id = %s", (days, job.id))
    return job.id


def end_job(store: psycopg.Connection, job_id: uuid.UUID, days: int) -> None:
    store.execute(
        "UPDATE headrace_jobs SET state = 'succeeded', finished_at = now() - %s * interval '1 day' WHERE id = %s",
        (days, job_id),
    )


def counts(store: psycopg.Connection) -> list[int]:
    return [store.execute(f"SELECT count(*) FROM headrace_{name}").fetchall()[0][0] for name in TABLES]


def write_rows(url: str, batch: Callable[..., BatchRows], job_id: uuid.UUID | None, when: dt.datetime) -> None:
    """Write a row whose id has a day, and one whose id has none."""
    stamp = int(when.timestamp() * 1e9)
    rows = [
        Row(id=each, state="succeeded", job_id=None if job_id is None else str(job_id))
        for each in (uuid7(stamp, uuid.uuid4().bytes[:8]), uuid.uuid4())
    ]
    with StoreWriter(url) as writer:
        writer.write([batch(rows=rows, finished_at=when.timestamp())])


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}))
def test_rows_of_a_job_that_has_not_ended_are_never_dropped(
    store_url: str, store: psycopg.Connection, make_batch: Callable[..., BatchRows], state: JobState
) -> None:
    now = dt.datetime.now(dt.UTC)
    ensure_partitions(store, today=(now - 9 * DAY).date())
    job_id = job_of_long_ago(store_url, store, days=9)
    store.execute("UPDATE headrace_jobs SET state = %s", (state,))
    write_rows(store_url, make_batch, job_id, now - 9 * DAY)
    before = counts(store)
    prune(store_url, 3, now)
    assert store.execute("SELECT count(*) FROM predictions WHERE job_id = %s", (str(job_id),)).fetchone() == (2,)
    assert counts(store) == before
    end_job(store, job_id, days=0)
    prune(store_url, 3, now)
    assert store.execute("SELECT count(*) FROM predictions").fetchone() == (0,)
    assert counts(store) == before


def test_other_rows_go_though_a_job_has_not_ended(
    store_url: str, store: psycopg.Connection, make_batch: Callable[..., BatchRows]
) -> None:
    now = dt.datetime.now(dt.UTC)
    ensure_partitions(store, today=(now - 9 * DAY).date())
    job_of_long_ago(store_url, store, days=9)
    write_rows(store_url, make_batch, None, now - 7 * DAY)
    write_rows(store_url, make_batch, uuid.uuid4(), now - 7 * DAY)
    prune(store_url, 3, now)
    assert store.execute("SELECT count(*) FROM predictions").fetchone() == (0,)


def test_the_ledger_forgets_jobs_that_ended_long_ago_and_no_others(store_url: str, store: psycopg.Connection) -> None:
    end_job(store, job_of_long_ago(store_url, store, 9, "/in/old"), days=5)
    end_job(store, job_of_long_ago(store_url, store, 9, "/in/new"), days=1)
    job_of_long_ago(store_url, store, 9, "/in/live")
    assert counts(store) == [3, 3, 6, 3, 3]
    assert prune(store_url, 3, dt.datetime.now(dt.UTC)) == 6
    assert counts(store) == [2, 2, 4, 2, 2]


def test_a_removal_that_broke_off_is_finished_by_the_next_in_chunks(
    store_url: str, store: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_retention, "_CHUNK_ROWS", 1)
    job_of_long_ago(store_url, store, 9)
    store.execute("DELETE FROM headrace_jobs")
    prune(store_url, 3, dt.datetime.now(dt.UTC))
    assert counts(store) == [0, 0, 0, 0, 0]


def test_nothing_goes_where_all_is_kept(store_url: str, store: psycopg.Connection) -> None:
    end_job(store, job_of_long_ago(store_url, store, 9), days=5)
    assert prune(store_url, 0, dt.datetime.now(dt.UTC)) == 0
    assert counts(store) == [1, 1, 2, 1, 1]
