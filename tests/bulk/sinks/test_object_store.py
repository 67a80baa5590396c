"""The life of an output folder in an object store, with deaths between any two requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bulk.sinks.dying import Dying
from tests.bulk.sinks.finished_job import FinishedJob

from headrace.bulk.sinks.base import OutputTaken, PartFormat
from headrace.bulk.sinks.output.folder import check_output
from headrace.bulk.sinks.output.removal import remove_output
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.contracts.jobs import JobState


@pytest.fixture
def job(s3_bucket: str, tmp_path: Path) -> FinishedJob:
    return FinishedJob(open_storage(s3_bucket, Roots([s3_bucket])), f"{s3_bucket}/täglich/out 1", tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_job_ends_once_and_is_removed_once(job: FinishedJob, kind: PartFormat) -> None:
    job.kind = kind
    job.score(0, 0, 5, bad=2)
    job.finalize(JobState.CANCELLED)
    job.score(0, 7, 2, bad=1)
    stray = job.publish(0, 8, 1)
    for changes in range(20):
        try:
            job.finalize(storage=Dying(job.storage, changes))
        except KeyboardInterrupt:
            continue
        break
    assert stray.name not in job.names()
    assert job.names() == ["_SUCCESS", "_errors/part-000000.parquet", "_manifest.json", *[p.name for p in job.parts]]
    before = job.content()
    job.finalize()
    assert job.content() == before
    check_output(job.storage, job.folder, job.spec, str(job.id))
    with pytest.raises(OutputTaken, match=f"holds outputs of job {job.id}"):
        check_output(job.storage, job.folder, job.spec, "another")
    for changes in range(1, 20):
        try:
            remove_output(Dying(job.storage, changes), job.folder, str(job.id))
        except KeyboardInterrupt:
            continue
        break
    assert job.names() == []
