"""The end of a job: its parts verified, errors, manifest, and `_SUCCESS` last, whatever happened before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from tests.bulk.sinks.dying import Dying
from tests.bulk.sinks.finished_job import FinishedJob, bad_row, replaced

from headrace.bulk.sinks.base import FinalizingLost, OutputDamaged, OutputTaken
from headrace.bulk.sinks.finishing.error_parts import MAX_BYTES
from headrace.bulk.sinks.finishing.finalizer import Finalizer
from headrace.bulk.storage.base import ObjectInfo, Storage, StorageUnavailable
from headrace.bulk.storage.local.files import LocalStorage
from headrace.bulk.storage.roots import Roots
from headrace.contracts.jobs import JobState


def test_a_job_ends_with_errors_a_manifest_and_success(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=2)
    job.score(0, 7, 3)
    job.score(1, 0, 4)
    finished = job.finalize()
    assert job.names() == [
        "_SUCCESS",
        "_errors/part-000000.parquet",
        "_manifest.json",
        "part-000000-000000000000.parquet",
        "part-000000-000000000007.parquet",
        "part-000001-000000000000.parquet",
    ]
    manifest = json.loads(Path(job.folder, "_manifest.json").read_bytes())
    assert (manifest["job"], manifest["state"], manifest["model"], manifest["version"]) == (
        str(job.id),
        "succeeded",
        "digits",
        "2",
    )
    assert manifest["rows"] == {"in": 14, "ok": 12, "bad": 2, "skipped": 0}
    assert [part["name"] for part in manifest["parts"]] == [part.name for part in job.parts]
    assert [file["uri"] for file in manifest["files"]] == ["/in/0", "/in/1"]
    assert finished.manifest_etag == job.storage.stat(f"{job.folder}/_manifest.json").etag
    success = json.loads(Path(job.folder, "_SUCCESS").read_bytes())
    assert success == {"job": str(job.id), "key": job.spec.key().hex(), "state": "succeeded"}


def test_bad_rows_name_their_file_row_and_line(job: FinishedJob) -> None:
    job.score(1, 0, 3, bad=1)
    job.finalize()
    table = pq.read_table(Path(job.folder, "_errors"))
    assert table.to_pylist() == [
        {
            "file": "/in/1",
            "row": 3,
            "line": 4,
            "stage": "decode",
            "type": "NotANumber",
            "message": "x is text",
            "input": b'{"x":"a"}',
            "retry": 0,
        }
    ]


def test_a_job_without_bad_rows_has_no_errors_folder(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.finalize()
    assert not Path(job.folder, "_errors").exists()


def test_a_job_without_rows_succeeds(job: FinishedJob) -> None:
    job.finalize()
    assert job.names() == ["_SUCCESS", "_manifest.json"]


def test_a_shard_whose_rows_were_all_bad_may_have_no_part(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.parts.append(replaced(job.parts[0], shard_no=1, name="", etag="", bytes=0, rows_ok=0, rows_bad=1))
    job.errors.append(bad_row(0, 5, 1))
    job.finalize()
    assert "_SUCCESS" in job.names()


def test_a_second_finalizer_finds_all_done(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=2)
    first = job.finalize()
    before = job.content()
    assert job.finalize() == first
    assert job.content() == before


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_finalizer_that_dies_anywhere_is_finished_by_the_next(job: FinishedJob, kind: str, resumed: bool) -> None:
    job.kind = "csv" if kind == "csv" else "parquet"
    job.score(0, 0, 5, bad=2)
    if resumed:
        job.finalize(JobState.CANCELLED)
    job.score(0, 7, 2, bad=1)
    for changes in range(20):
        try:
            job.finalize(storage=Dying(job.storage, changes))
        except KeyboardInterrupt:
            assert "_SUCCESS" not in job.names() or "_manifest.json" in job.names()
            continue
        break
    assert changes > 2
    assert job.names() == ["_SUCCESS", "_errors/part-000000.parquet", "_manifest.json", *[p.name for p in job.parts]]
    assert json.loads(Path(job.folder, "_manifest.json").read_bytes())["state"] == "succeeded"
    assert pq.read_table(Path(job.folder, "_errors")).num_rows == 3


def test_a_part_that_is_gone_stops_the_end(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    gone = job.score(0, 5, 5)
    Path(job.folder, gone.name).unlink()
    with pytest.raises(OutputDamaged, match=r"part-000000-000000000005.parquet is gone.*--restart"):
        job.finalize()
    assert "_SUCCESS" not in job.names()


def test_a_part_that_was_changed_stops_the_end(job: FinishedJob) -> None:
    changed = Path(job.folder, job.score(0, 0, 5).name)
    changed.write_bytes(changed.read_bytes() + b"x")
    with pytest.raises(OutputDamaged, match="was changed after it was published"):
        job.finalize()
    assert job.names() == [changed.name]


def test_rows_that_do_not_add_up_stop_the_end(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=1)
    job.errors.clear()
    with pytest.raises(OutputDamaged, match="do not add up: 1 rows were bad, and 0 are listed"):
        job.finalize()


def test_a_part_of_an_attempt_that_lost_its_shard_is_removed(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.score(0, 9, 5)
    stray = [job.publish(0, row, 2).name for row in (3, 20)]
    assert job.finalize().removed == stray
    assert [name for name in job.names() if name.startswith("part")] == [part.name for part in job.parts]


@pytest.mark.parametrize("name", ["a.txt", "part-000000-000000000002.parquet", "z.parquet"])
def test_a_file_that_somebody_put_there_stops_the_end_and_stays(job: FinishedJob, name: str) -> None:
    job.score(0, 0, 5)
    Path(job.folder, name).write_bytes(b"mine")
    with pytest.raises(OutputTaken, match=f"{name} was not written by this job; move it away"):
        job.finalize()
    assert Path(job.folder, name).read_bytes() == b"mine"
    assert "_SUCCESS" not in job.names()


def test_a_cancelled_job_has_a_manifest_and_no_success(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    unfinished = job.publish(0, 5, 5)
    job.finalize(JobState.CANCELLED)
    assert job.names() == ["_manifest.json", job.parts[0].name, unfinished.name]
    assert json.loads(Path(job.folder, "_manifest.json").read_bytes())["state"] == "cancelled"


def test_a_job_that_was_refused_writes_nothing_into_the_folder(job: FinishedJob) -> None:
    job.storage.put(f"{job.folder}/photo.jpg", b"mine")
    assert job.finalize(JobState.FAILED).manifest_etag == ""
    assert job.names() == ["photo.jpg"]


def test_a_job_that_was_a_success_and_then_failed_has_no_success(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.finalize()
    job.score(1, 0, 5)
    job.finalize(JobState.FAILED)
    assert "_SUCCESS" not in job.names()


def test_a_retry_replaces_the_manifest_and_the_errors(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=2)
    first = job.finalize()
    job.retry = 1
    job.errors = [bad_row(0, 6, 1, retry=1)]
    job.parts[0] = replaced(job.parts[0], rows_bad=0)
    job.publish(0, 5, 1)
    retried = job.publish(0, 5, 1)
    job.parts.append(
        replaced(
            job.parts[0],
            shard_no=1,
            retry=1,
            slice=msgspec.structs.replace(job.parts[0].slice, row_start=5),
            name=retried.name,
            etag=retried.etag,
            bytes=retried.size_bytes,
            rows_ok=1,
            rows_bad=1,
        )
    )
    second = job.finalize()
    assert second.manifest_etag != first.manifest_etag
    assert job.names() == [
        "_SUCCESS",
        "_errors/part-000000-r1.parquet",
        "_manifest.json",
        "part-000000-000000000000.parquet",
        "part-000000-000000000005-r1.parquet",
    ]
    assert pq.read_table(Path(job.folder, "_errors")).column("retry").to_pylist() == [1]


def test_both_attempts_at_one_slice_are_in_order(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    job.retry = 1
    job.score(0, 0, 2)
    job.retry = 0
    job.score(0, 9, 5)
    job.retry = 1
    job.finalize()
    assert "_SUCCESS" in job.names()


def test_the_output_of_another_job_is_not_ended(job: FinishedJob, storage: Storage, tmp_path: Path) -> None:
    job.score(0, 0, 5)
    job.finalize()
    before = job.content()
    other = FinishedJob(storage, job.folder, tmp_path / "scratch")
    with pytest.raises(OutputTaken, match=f"is of job {job.id}"):
        other.finalize()
    assert job.content() == before


def test_a_finalizer_that_lost_its_lease_changes_nothing(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=1)
    old = job.outcome()
    job.retry = 1
    job.score(0, 0, 1)
    job.finalize()
    before = job.content()

    def lost() -> None:
        raise FinalizingLost

    with pytest.raises(FinalizingLost):
        Finalizer(job.storage, job.folder, replace(old, renew=lost), job.scratch).run()
    assert job.content() == before


def test_many_bad_rows_go_into_several_files(job: FinishedJob) -> None:
    job.score(0, 0, 5)
    rows = 3 * MAX_BYTES // 60_000
    job.errors = [bad_row(0, 5 + at, 0, content=b"x" * 60_000) for at in range(rows)]
    job.parts[0] = replaced(job.parts[0], rows_bad=rows)
    finished = job.finalize()
    assert 3 <= len(finished.errors) <= 4
    assert pq.read_table(Path(job.folder, "_errors")).column("row").to_pylist() == list(range(5, 5 + rows))


def test_bad_requests_of_an_openai_batch_are_lines_too(job: FinishedJob) -> None:
    job.input_format = "openai"
    job.score(0, 0, 2, bad=2)
    job.errors = [
        bad_row(0, 2, 0, content=b'{"custom_id":"r-2","body":{}}'),
        bad_row(0, 3, 0, content=b'{"custom_id":'),
    ]
    job.finalize()
    lines = [json.loads(line) for line in Path(job.folder, "_errors/part-000000.jsonl").read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == ["r-2", None]
    assert lines[0]["error"] == {"code": "NotANumber", "message": "x is text"}
    assert lines[0]["response"] is None


def test_a_manifest_that_is_replaced_all_the_time_is_tried_again_later(job: FinishedJob, tmp_path: Path) -> None:
    class Busy(LocalStorage):
        def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
            return super().replace(uri, content, "another")

    job.score(0, 0, 5)
    job.finalize(JobState.CANCELLED)
    with pytest.raises(StorageUnavailable, match="replaced by somebody else"):
        job.finalize(storage=Busy(Roots([str(tmp_path)])))
