"""What an output folder may hold before a job writes into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bulk.sinks.finished_job import FinishedJob

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.folder import check_output
from headrace.bulk.sinks.output.overlap import mixed_input
from headrace.bulk.storage.base import Storage
from headrace.contracts.jobs import JobState, ScoreSpec


def spec(output: str, *inputs: str) -> ScoreSpec:
    return ScoreSpec(model="digits", inputs=inputs or ("/elsewhere",), output=output)


def test_a_folder_that_does_not_exist_is_fine(storage: Storage, out: str) -> None:
    check_output(storage, out, spec(out), "job-1")


def test_the_outputs_of_the_same_job_are_no_obstacle(job: FinishedJob) -> None:
    job.score(0, 0, 5, bad=1)
    check_output(job.storage, job.folder, job.spec, str(job.id))
    job.finalize()
    check_output(job.storage, job.folder, job.spec, str(job.id))


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.CANCELLED, None])
def test_the_outputs_of_another_job_are_refused(job: FinishedJob, state: JobState | None) -> None:
    job.score(0, 0, 5)
    if state:
        job.finalize(state)
    with pytest.raises(OutputTaken, match=rf"outputs of job {job.id}; choose another output, or --restart"):
        check_output(job.storage, job.folder, job.spec, "job-2")


@pytest.mark.parametrize("name", ["photo.jpg", "sub/part-000000-000000000000.parquet", "part-000000-000000000000.csv"])
def test_a_file_of_somebody_else_is_named(storage: Storage, out: str, name: str) -> None:
    storage.put(f"{out}/{name}", b"mine")
    with pytest.raises(OutputTaken, match=f"out/{name}.*choose a folder that is empty"):
        check_output(storage, out, spec(out), "job-1")


def test_a_success_of_another_tool_is_refused(storage: Storage, out: str) -> None:
    storage.put(f"{out}/_SUCCESS", b"")
    with pytest.raises(OutputTaken, match="_SUCCESS was not written by a headrace job"):
        check_output(storage, out, spec(out), "job-1")


def test_hidden_files_of_others_are_no_obstacle(storage: Storage, out: str) -> None:
    storage.put(f"{out}/.DS_Store", b"x")
    check_output(storage, out, spec(out), "job-1")


def test_an_output_that_is_a_file_is_refused(storage: Storage, out: str) -> None:
    storage.put(out, b"x")
    with pytest.raises(OutputTaken, match="is a file; an output is a folder"):
        check_output(storage, out, spec(out), "job-1")


def test_input_and_output_in_one_folder_are_refused(storage: Storage, out: str) -> None:
    with pytest.raises(OutputTaken, match=f"output {out} and the input {out}/a.csv lie one in the other"):
        check_output(storage, out, spec(out, f"{out}/a.csv"), "job-1")


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("/data", ["/data"]),
        ("/data/", ["/data"]),
        ("/data/out", ["/data"]),
        ("/data", ["/data/in"]),
        ("/data", ["/data/a.parquet"]),
        ("/data", ["/elsewhere", "/data/*.parquet"]),
        ("/data/out", ["/data/**"]),
        ("/data/out", ["/data/**/*.parquet"]),
        ("/data/out", ["/data/*/part-*.csv"]),
        ("/data", ["/data/in/*.csv"]),
        ("s3://bucket/data/out", ["s3://bucket/data"]),
        ("s3://bucket", ["s3://bucket/data"]),
    ],
)
def test_outputs_that_would_become_inputs_are_found(output: str, inputs: list[str]) -> None:
    assert mixed_input(output, inputs) == inputs[-1]


@pytest.mark.parametrize(
    ("output", "uri"),
    [
        ("/data/out", "/data/a.parquet"),
        ("/data/out", "/data/*.parquet"),
        ("/data/out", "/data/outer"),
        ("/data/outer", "/data/out"),
        ("/data/_scored", "/data"),
        ("/data/.scored/1", "/data"),
        ("/data", "/data/_in"),
        ("/data/out", "/data/2026-*/*.csv"),
        ("s3://bucket/out", "s3://bucket/in"),
        ("s3://bucket/out", "s3://other/out"),
        ("/bucket", "s3://bucket"),
        ("/out", "sql:select * from out"),
    ],
)
def test_outputs_apart_from_inputs_are_fine(output: str, uri: str) -> None:
    assert mixed_input(output, [uri]) is None


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert mixed_input(f"{tmp_path}/link/out", [f"{tmp_path}/data"])


PATHS = st.lists(st.sampled_from(["a", "b", "_c", "d e"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@settings(deadline=None)
@given(output=PATHS, uri=PATHS)
def test_folders_mix_whichever_is_the_output(output: str, uri: str) -> None:
    assert bool(mixed_input(output, [uri])) == bool(mixed_input(uri, [output]))
