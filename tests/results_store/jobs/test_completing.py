from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import psycopg
import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import LEASE_S, ROWS, WORKER, bad_row, claimed, new_job, result, slices

from headrace.contracts.errors import StoreUnavailable
from headrace.contracts.jobs import JobState
from headrace.results_store import BatchRows, Row, StoreRejected
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import InputFile, Page, ShardResult, Slice
from headrace.results_store.jobs.rows import copy_bad_rows
from headrace.results_store.jobs.shards import completing
from headrace.results_store.jobs.shards.completing import CountMismatch

REST = Slice(file_no=0, row_start=60, rows=40, size_bytes=400, est_s=0.4)


def predictions(count: int, job_id: uuid.UUID) -> list[BatchRows]:
    rows = [
        Row(
            id=uuid.uuid5(job_id, str(number)),
            state="succeeded",
            outputs=b'{"y":[1]}',
            job_id=str(job_id),
            row_index=number,
        )
        for number in range(count)
    ]
    return [BatchRows(model="digits", version="2", rows=rows, finished_at=time.time())]


def test_bad_rows_are_listed_with_what_they_were(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    ledger.completions.complete(claimed(ledger), result(ok=98, bad=(7, 3)))
    errors = ledger.finishes.errors(job.id)
    assert [error.row for error in errors] == [3, 7]
    assert (errors[0].type, errors[0].input, errors[0].retry, errors[0].shard_no) == ("InvalidImage", b"\xff", 0, 0)


def test_texts_that_postgres_cannot_hold_and_long_inputs_are_cut(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    bad = bad_row(3).__class__(
        file_no=0, row=3, stage="read", type="X", message="a\x00b\ud800\tc\\n", input=b"\x00" * 100_000
    )
    ledger.completions.complete(claimed(ledger), ShardResult(rows_ok=99, rows_bad=1, rows_skipped=0, bad=[bad]))
    (error,) = ledger.finishes.errors(job.id)
    assert (error.message, len(error.input)) == ("a\ufffdb?\tc\\n", 65_536)


@pytest.mark.parametrize("wrong", [result(ok=99), result(ok=101), result(ok=98, bad=(1,))])
def test_rows_that_are_missing_or_too_many_are_an_error_and_change_nothing(
    ledger: Ledger, make_job: MakeJob, wrong: ShardResult
) -> None:
    make_job()
    claim = claimed(ledger)
    with pytest.raises(CountMismatch, match="--restart"):
        ledger.completions.complete(claim, wrong)
    assert ledger.completions.complete(claim, result()).stored


def test_bad_rows_that_are_not_listed_are_an_error(ledger: Ledger, make_job: MakeJob) -> None:
    make_job()
    with pytest.raises(CountMismatch, match="2 bad rows were counted, and 0 listed"):
        ledger.completions.complete(claimed(ledger), ShardResult(rows_ok=98, rows_bad=2, rows_skipped=0))


def test_a_job_with_more_bad_rows_than_allowed_fails_and_starts_no_more_shards(
    ledger: Ledger, make_job: MakeJob
) -> None:
    job = make_job(3, max_errors="2")
    assert ledger.completions.complete(claimed(ledger), result(ok=98, bad=(1, 2))).state is JobState.RUNNING
    assert ledger.completions.complete(claimed(ledger), result(ok=99, bad=(101,))).state is JobState.FAILED
    failed = ledger.jobs.get(job.id)
    assert failed.error.startswith("3 of 200 rows so far are bad, more than --max-errors 2 allows")
    assert ledger.claims.claim(WORKER, LEASE_S) is None


def test_a_job_whose_last_shard_has_too_many_bad_rows_fails(ledger: Ledger, make_job: MakeJob) -> None:
    make_job(1, max_errors="1%")
    assert ledger.completions.complete(claimed(ledger), result(ok=98, bad=(1, 2))).state is JobState.FAILED


def test_the_rest_of_a_shard_keeps_its_suspects_by_their_place_in_it(ledger: Ledger, make_job: MakeJob) -> None:
    make_job()
    dead = claimed(ledger, lease_s=-1)
    ledger.running.mark_suspect(dead, (50, 70))
    ledger.completions.complete(claimed(ledger), result(ok=60, rest=REST))
    rest = claimed(ledger)
    assert (rest.deaths, rest.suspect, rest.slice) == (1, (0, 10), REST)


def test_the_rest_after_the_suspects_is_not_suspect(ledger: Ledger, make_job: MakeJob) -> None:
    make_job()
    dead = claimed(ledger, lease_s=-1)
    ledger.running.mark_suspect(dead, (50, 60))
    ledger.completions.complete(claimed(ledger), result(ok=60, rest=REST))
    rest = claimed(ledger)
    assert (rest.deaths, rest.suspect) == (0, None)


def test_the_rest_of_a_shard_that_killed_somewhere_is_run_with_care(ledger: Ledger, make_job: MakeJob) -> None:
    make_job()
    claimed(ledger, lease_s=-1)
    ledger.completions.complete(claimed(ledger), result(ok=60, rest=REST))
    rest = claimed(ledger)
    assert (rest.deaths, rest.suspect) == (1, None)


def test_a_shard_of_several_files_shrinks_to_those_that_are_done(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job())
    lease_files = [InputFile(file_no=number, uri=f"/in/{number}", format="csv", size=9) for number in range(5)]
    whole = Slice(file_no=0, files=5, rows=-1, size_bytes=500, est_s=5.0)
    lease = ledger.plans.lead(WORKER, LEASE_S, 10)
    assert lease is not None
    ledger.plans.add_page(lease, Page(files=lease_files, slices=[whole], done=True))
    claim = claimed(ledger)
    assert [file.uri for file in claim.files] == [f"/in/{number}" for number in range(5)]
    rest = Slice(file_no=2, files=3, row_start=4, rows=-1, size_bytes=300, est_s=3.0)
    ledger.completions.complete(claim, result(ok=24, rest=rest))
    again = claimed(ledger)
    assert (again.slice, [file.uri for file in again.files]) == (rest, ["/in/2", "/in/3", "/in/4"])
    last = Slice(file_no=4, files=1, rows=-1, size_bytes=100, est_s=1.0)
    ledger.completions.complete(again, result(ok=16, rest=last))
    ledger.completions.complete(claimed(ledger), result(ok=10))
    parts = ledger.finishes.parts(job.id)
    assert [(part.slice.file_no, part.slice.files, part.slice.rows, part.slice.size_bytes) for part in parts] == [
        (0, 3, 24, 200),
        (2, 2, 16, 200),
        (4, 1, 10, 100),
    ]
    finish = ledger.finishes.lead(WORKER, LEASE_S)
    assert finish is not None
    assert ledger.finishes.sums(finish).mismatch() == ""


def test_predictions_and_completion_are_stored_together(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job()
    claim = claimed(ledger)
    for _ in range(2):
        assert ledger.completions.complete(claim, result(), predictions(ROWS, job.id)).stored
    assert store.execute("SELECT count(*), count(DISTINCT row_index) FROM predictions").fetchone() == (ROWS, ROWS)


def test_a_zombie_stores_no_predictions(ledger: Ledger, store: psycopg.Connection, make_job: MakeJob) -> None:
    job = make_job()
    zombie = claimed(ledger, lease_s=-1)
    claimed(ledger)
    assert not ledger.completions.complete(zombie, result(), predictions(ROWS, job.id)).stored
    assert store.execute("SELECT count(*) FROM predictions").fetchone() == (0,)


def test_predictions_that_postgres_refuses_are_named_and_the_shard_is_as_it_was(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    job = make_job()
    claim = claimed(ledger)
    batches = predictions(ROWS, job.id)
    rows = batches[0].rows
    rows[5].outputs, rows[70].outputs, rows[71].id = b'{"y":["\\u0000"]}', b"{", rows[3].id
    with pytest.raises(StoreRejected, match=r"Postgres refuses 3 row\(s\)") as caught:
        ledger.completions.complete(claim, result(), batches)
    assert set(caught.value.refused) == {rows[5].id, rows[70].id, rows[71].id}
    assert store.execute("SELECT count(*) FROM predictions").fetchone() == (0,)
    assert ledger.completions.complete(claim, result(), predictions(ROWS, job.id)).stored


def test_a_prediction_that_cannot_be_encoded_is_named(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    batches = predictions(3, job.id)
    batches[0].rows[1].row_index = 2**63
    with pytest.raises(StoreRejected) as caught:
        ledger.completions.complete(claimed(ledger), result(), batches)
    assert set(caught.value.refused) == {batches[0].rows[1].id}


def test_too_many_bad_rows_fail_a_job_though_the_worker_died_before_it_could_tell(
    ledger: Ledger, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(1, max_errors="1")
    with monkeypatch.context() as patched:
        for name in ("stop_at_bound", "settle"):
            patched.setattr(completing, name, lambda *_: JobState.RUNNING)
        ledger.completions.complete(claimed(ledger), result(ok=98, bad=(1, 2)))
    assert ledger.jobs.get(job.id).state is JobState.RUNNING
    ledger.sweep()
    assert ledger.jobs.get(job.id).state is JobState.FAILED


def test_a_session_that_ends_in_the_middle_of_a_completion_leaves_nothing_of_it(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    claim = claimed(ledger)
    copy: Callable[..., None] = copy_bad_rows

    def copy_and_end(connection: psycopg.Connection, *arguments: object) -> None:
        copy(connection, *arguments)
        store.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    monkeypatch.setattr(completing, "copy_bad_rows", copy_and_end)
    with pytest.raises(StoreUnavailable):
        ledger.completions.complete(claim, result(ok=58, bad=(3, 5), rest=REST))
    monkeypatch.undo()
    progress = ledger.progress.of(job.id)
    assert (progress.rows_done, progress.shards_running, progress.shards_waiting) == (0, 1, 0)
    assert ledger.finishes.errors(job.id) == []
    assert ledger.completions.complete(claim, result(ok=98, bad=(3, 5))).state is JobState.FINALIZING


def test_a_session_that_ends_while_it_is_idle_is_replaced_unnoticed(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    make_job()
    store.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    time.sleep(0.2)
    assert claimed(ledger).slice == slices(1)[0]


def test_a_shard_that_cannot_be_done_fails_its_job_and_runs_again_when_that_goes_on(
    ledger: Ledger, make_job: MakeJob
) -> None:
    job = make_job(2)
    assert ledger.running.fail_job(claimed(ledger), "the output folder is that of another job; choose another")
    assert ledger.jobs.get(job.id).error.startswith("the output folder")
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    ledger.control.resume(job.id)
    assert [claimed(ledger).shard_no for _ in range(2)] == [0, 1]


def test_a_shard_that_is_given_back_for_a_while_is_claimed_after_it(
    ledger: Ledger, store: psycopg.Connection, make_job: MakeJob
) -> None:
    make_job()
    assert ledger.running.release(claimed(ledger), delay_s=3600)
    assert ledger.claims.claim(WORKER, LEASE_S) is None
    store.execute("UPDATE headrace_job_shards SET lease_until = now() - interval '1 second'")
    again = claimed(ledger)
    assert (again.attempt, again.deaths) == (2, 0)
