"""Removal of an earlier job's outputs: all of them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bulk.sinks.dying import Dying
from tests.bulk.sinks.finished_job import FinishedJob, bad_row

from headrace.bulk.sinks.base import OutputTaken, PartFormat
from headrace.bulk.sinks.output.removal import remove_output
from headrace.contracts.jobs import JobState


def named(job: FinishedJob) -> dict[str, str]:
    return {part.name: part.etag for part in job.parts}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.CANCELLED, None])
@pytest.mark.parametrize("ledger", [True, False])
def test_all_outputs_of_a_job_are_removed(
    job: FinishedJob, kind: PartFormat, state: JobState | None, ledger: bool
) -> None:
    job.kind, job.input_format = kind, "openai"
    job.score(0, 0, 5, bad=1)
    job.score(0, 6, 5)
    if state is not JobState.SUCCEEDED:
        job.publish(0, 11, 3)  # by an attempt that died before it said so
    if state:
        job.finalize(state)
    remove_output(job.storage, job.folder, str(job.id), named(job) if ledger else {})
    assert job.names() == []


def test_nothing_is_removed_while_something_else_is_there(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=1)
    job.finalize()
    for name in ("zz.txt", "_errors/notes.parquet", "part-999999-000000000000.parquet", "_parts/x.json"):
        path = Path(job.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
        before = job.names()
        with pytest.raises(OutputTaken, match=f"{name} was not written by this job, so nothing is removed"):
            remove_output(job.storage, job.folder, str(job.id), named(job))
        assert job.names() == before
        path.unlink()


def test_a_part_that_somebody_replaced_is_not_removed(job: FinishedJob) -> None:
    part = Path(job.folder, job.score(0, 0, 5).name)
    part.write_bytes(b"mine")
    with pytest.raises(OutputTaken):
        remove_output(job.storage, job.folder, str(job.id), named(job))
    assert part.read_bytes() == b"mine"


def test_the_output_of_another_job_stays(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.finalize()
    before = job.names()
    with pytest.raises(OutputTaken, match=f"holds outputs of job {job.id}"):
        remove_output(job.storage, job.folder, "another", {})
    assert job.names() == before


def test_a_folder_that_does_not_exist_has_nothing_to_remove(job: FinishedJob) -> None:
    assert remove_output(job.storage, job.folder, str(job.id)) == 0


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_removal_that_dies_anywhere_is_finished_by_the_next(job: FinishedJob, kind: PartFormat) -> None:
    job.kind, job.input_format = kind, "openai"
    job.score(0, 0, 5, bad=1)
    job.score(0, 6, 5)
    job.errors = [bad_row(0, 5, 0, content=b'{"custom_id":"r"}')]
    job.finalize()
    for changes in range(1, 20):
        try:
            remove_output(Dying(job.storage, changes), job.folder, str(job.id), named(job))
        except KeyboardInterrupt:
            assert "_SUCCESS" not in job.names()
            continue
        break
    assert changes > 1
    assert job.names() == []
