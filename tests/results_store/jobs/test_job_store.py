from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from tests.results_store.jobs.conftest import MakeJob
from tests.results_store.jobs.examples import new_job

from headrace.contracts.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from headrace.contracts.jobs import STORE, JobOptions, JobState
from headrace.results_store.jobs.job_store import AmbiguousJob, OutputBusy, UnknownJob
from headrace.results_store.jobs.ledger import Ledger


def test_a_job_is_kept_as_it_was_created(ledger: Ledger) -> None:
    new = new_job(name="nightly", priority=3, weight=0.5, max_errors="1%", workers=4, max_rows_per_s=100.0)
    job, created = ledger.jobs.create(new)
    assert created
    assert job.state is JobState.PLANNING
    assert (job.spec, job.options, job.name, job.version) == (new.spec, new.options, "nightly", "2")
    assert ledger.jobs.get(job.id) == job


def test_the_same_job_is_created_once(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job(priority=1))
    again, created = ledger.jobs.create(new_job(priority=2))
    assert (again, created) == (job, False)
    assert ledger.jobs.with_key(job.spec.key()) == job
    assert ledger.jobs.create(new_job("/in/b.parquet"))[1]


def test_people_who_start_the_same_job_at_once_get_one_job(store_url: str) -> None:
    start = threading.Barrier(8)

    def create(_: int) -> tuple[uuid.UUID, bool]:
        with Ledger(store_url) as mine:
            start.wait()
            job, created = mine.jobs.create(new_job())
            return job.id, created

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(create, range(8)))
    assert len({job for job, _ in made}) == 1
    assert sum(created for _, created in made) == 1


def test_a_job_is_found_by_its_id_part_of_it_or_its_name(ledger: Ledger) -> None:
    job, _ = ledger.jobs.create(new_job(name="nightly"))
    for text in (str(job.id), str(job.id).upper(), str(job.id)[:30], str(job.id)[-6:], "nightly", " nightly "):
        assert ledger.jobs.find(text) == job


def test_the_newest_job_of_a_name_is_found(ledger: Ledger) -> None:
    ledger.jobs.create(new_job("/in/a", name="nightly"))
    newer, _ = ledger.jobs.create(new_job("/in/b", name="nightly"))
    assert ledger.jobs.find("nightly") == newer


@pytest.mark.parametrize("text", ["", "abc", "%", "____", "nightly", "0190-%", "\x00", "0" * 36])
def test_what_is_no_job_is_unknown(ledger: Ledger, text: str) -> None:
    ledger.jobs.create(new_job())
    with pytest.raises(UnknownJob, match="headrace jobs list"):
        ledger.jobs.find(text)


def test_part_of_an_id_that_several_jobs_have_is_ambiguous(ledger: Ledger) -> None:
    jobs = [ledger.jobs.create(new_job(f"/in/{number}"))[0] for number in range(3)]
    with pytest.raises(AmbiguousJob, match=str(jobs[2].id)):
        ledger.jobs.find(str(jobs[0].id)[:5])


def test_jobs_are_listed_newest_first_with_their_progress(ledger: Ledger, make_job: MakeJob) -> None:
    jobs = [make_job(2, path=f"/in/{number}") for number in range(3)]
    assert [job.id for job in ledger.jobs.newest(2)] == [jobs[2].id, jobs[1].id]
    assert [(each.job.id, each.rows_total) for each in ledger.progress.newest()] == [
        (job.id, 200) for job in jobs[::-1]
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"weight": 0.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"workers": -1}, "workers"),
        ({"max_rows_per_s": float("inf")}, "max_rows_per_s"),
        ({"max_errors": "many"}, "max_errors"),
    ],
)
def test_options_that_make_no_sense_are_refused(ledger: Ledger, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        ledger.jobs.create(new_job(**options))
    assert ledger.jobs.newest() == []


def test_input_files_are_read_in_pages(ledger: Ledger, make_job: MakeJob) -> None:
    job = make_job()
    (file,) = ledger.jobs.files(job.id)
    assert (file.uri, file.rows) == ("/in/a.parquet", 100)
    assert ledger.jobs.files(job.id, after=0) == []


def test_an_unreadable_path_is_refused_with_one_line(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest):
        ledger.jobs.create(new_job("/in/\x00"))


def test_a_server_that_is_away_is_store_unavailable() -> None:
    with Ledger("postgresql://nobody@127.0.0.1:1/none") as ledger, pytest.raises(StoreUnavailable):
        ledger.jobs.newest()


def test_a_database_without_the_tables_names_the_command_that_makes_them(database_url: str) -> None:
    with Ledger(database_url) as ledger, pytest.raises(ConfigurationError, match="headrace store migrate"):
        ledger.jobs.newest()


def test_of_two_jobs_that_are_to_write_to_one_output_the_second_is_refused_until_the_first_is_over(
    ledger: Ledger, other: Ledger
) -> None:
    first = new_job()
    second = msgspec.structs.replace(first, spec=msgspec.structs.replace(first.spec, inputs=("/in/other",)))
    job, _ = ledger.jobs.create(first)
    with pytest.raises(OutputBusy, match=str(job.id)):
        other.jobs.create(second)
    assert other.jobs.create(first) == (job, False)
    assert other.jobs.create(msgspec.structs.replace(second, options=JobOptions(dry_run=True)))[1]
    ledger.control.cancel(job.id)
    assert other.jobs.create(second)[1]


def test_jobs_whose_rows_go_to_the_store_share_it(ledger: Ledger) -> None:
    for path in ("/in/a", "/in/b"):
        new = new_job()
        spec = msgspec.structs.replace(new.spec, inputs=(path,), output=STORE)
        assert ledger.jobs.create(msgspec.structs.replace(new, spec=spec))[1]
