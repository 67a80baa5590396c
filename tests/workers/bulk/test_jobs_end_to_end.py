"""Jobs from submission to `_SUCCESS`, with a real worker: what comes out is what the model gives, row for row."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.workers.bulk.sites import (
    END_S,
    Site,
    check_doubled,
    errors_of,
    is_finished,
    manifest_of,
    output_of,
    parts_of,
)

from headrace.producers import Client
from headrace.producers.jobs.errors import JobFailed


@pytest.fixture(scope="module", autouse=True)
def worker(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    with site.worker() as process:
        yield process


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with site.client() as client:
        yield client


def vectors(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def affine_table(x: np.ndarray, **more: pa.Array) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 4)
    return pa.table({"key": pa.array([f"k{at}" for at in range(len(x))]), "x": column, **more})


def direct(site: Site, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(site.settings.models / "affine" / "1" / "model.onnx")
    outputs: list[np.ndarray] = session.run(None, {"x": x})
    return outputs[0]


def test_outputs_equal_those_of_the_bare_session_bit_for_bit_and_kept_columns_keep_their_types(
    site: Site, client: Client
) -> None:
    x = vectors(10_000)
    stamps = pa.array(np.arange(10_000), pa.timestamp("us", "UTC"))
    words = pa.array(["é\n"] * 10_000).dictionary_encode()
    source = site.new(".parquet")
    pq.write_table(affine_table(x, when=stamps, word=words), source, row_group_size=3_000)
    job = client.score("affine", source, site.new(), keep=["key", "when", "word"])
    progress = job.wait(END_S)
    found = output_of(job)
    assert found.schema.field("when").type == stamps.type
    assert found["key"].to_pylist() == [f"k{at}" for at in range(10_000)]
    assert found["word"].to_pylist() == ["é\n"] * 10_000
    y = np.array(found["y"].to_pylist(), np.float32)
    assert y.tobytes() == direct(site, x).tobytes()
    assert (progress.rows_ok, progress.rows_bad, progress.rows_skipped, progress.share) == (10_000, 0, 0, 1)
    assert manifest_of(job)["rows"] == {"in": 10_000, "ok": 10_000, "bad": 0, "skipped": 0}


def test_many_files_with_unicode_and_spaces_in_their_paths_are_scored_file_by_file_in_order(
    site: Site, client: Client
) -> None:
    folder = site.new(" ümlaut ✓ & 50%")
    (folder / "deeper").mkdir(parents=True)
    x = vectors(97, 2)
    for at in range(97):
        name = f"deeper/{at:03} #ä?.parquet" if at % 2 else f"{at:03} é.parquet"
        pq.write_table(affine_table(x[at : at + 1]), folder / name)
    job = client.score("affine", folder, site.new(" out ü"), keep=["key"])
    job.wait(END_S)
    order = sorted(range(97), key=lambda at: f"deeper/{at:03} #ä?.parquet" if at % 2 else f"{at:03} é.parquet")
    y = np.array(output_of(job)["y"].to_pylist(), np.float32)
    assert y.tobytes() == direct(site, x[order]).tobytes()
    uris = [file["uri"] for file in manifest_of(job)["files"]]
    assert len(set(uris)) == 97


def test_hidden_files_and_marks_in_the_input_folder_are_no_input(site: Site, client: Client) -> None:
    folder = site.new()
    (folder / "_errors").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    x = vectors(10, 3)
    pq.write_table(affine_table(x), folder / "part-1.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_manifest.json").write_text("{}")
    (folder / ".part-2.parquet.crc").write_bytes(b"x")
    for name in ("_errors/part-000000.parquet", ".hidden/a.parquet"):
        pq.write_table(pa.table({"reason": ["no"]}), folder / name)
    job = client.score("affine", folder, site.new())
    assert job.wait(END_S).rows_ok == 10
    assert [Path(file["uri"]).name for file in manifest_of(job)["files"]] == ["part-1.parquet"]


def test_no_rows_at_all_is_a_success_without_rows(site: Site, client: Client) -> None:
    source = site.new(".parquet")
    pq.write_table(affine_table(vectors(0)), source)
    job = client.score("affine", source, site.new(), keep=["key"])
    progress = job.wait(END_S)
    assert (progress.rows_done, progress.share) == (0, 1)
    assert manifest_of(job)["rows"] == {"in": 0, "ok": 0, "bad": 0, "skipped": 0}
    assert is_finished(job)


def test_an_empty_folder_says_so_within_seconds(site: Site, client: Client) -> None:
    folder = site.new()
    folder.mkdir()
    job = client.score("affine", folder, site.new())
    with pytest.raises(JobFailed, match=r"no file|no input|empty|nothing"):
        job.wait(END_S)


def test_bad_rows_are_listed_with_their_reason_and_affect_no_neighbour(site: Site, client: Client) -> None:
    rows: list[list[float | None] | None] = [[1.0, 2.0, 3.0, 4.0] for _ in range(300)]
    rows[7] = None
    rows[100] = [1.0, None, 3.0, 4.0]
    rows[101] = [1.0, 2.0, 3.0]
    rows[102] = []
    rows[255] = [1.0, float("nan"), 3.0, 4.0]
    source = site.new(".parquet")
    pq.write_table(pa.table({"id": range(300), "x": pa.array(rows, pa.list_(pa.float32()))}), source)
    job = client.score("affine", source, site.new(), keep=["id"])
    progress = job.wait(END_S)
    bad = {each["row"]: each for each in errors_of(job)}
    assert sorted(bad) == [7, 100, 101, 102, 255]
    assert {each["file"] for each in bad.values()} == {str(source)}
    assert all(
        each["stage"] in {"read", "decode", "prepare"} and each["type"] and each["message"] for each in bad.values()
    )
    assert json.loads(bad[101]["input"])["id"] == 101
    assert output_of(job)["id"].to_pylist() == [at for at in range(300) if at not in bad]
    assert (progress.rows_ok, progress.rows_bad) == (295, 5)
    assert manifest_of(job)["rows"] == {"in": 300, "ok": 295, "bad": 5, "skipped": 0}


def test_rows_with_nulls_are_skipped_when_told_so_and_counted(site: Site, client: Client) -> None:
    source = site.new(".parquet")
    pq.write_table(pa.table({"x": pa.array([[1, 1, 1, 1], None, [2, 2, 2, 2]], pa.list_(pa.float32()))}), source)
    job = client.score("affine", source, site.new(), on_null="skip")
    progress = job.wait(END_S)
    assert (progress.rows_ok, progress.rows_bad, progress.rows_skipped) == (2, 0, 1)
    assert errors_of(job) == []


def test_rows_on_which_the_model_fails_are_found_by_halving_and_all_others_succeed(site: Site, client: Client) -> None:
    x = np.arange(1_000)
    x[[0, 63, 64, 500, 501, 999]] *= -1
    x[0] = -5
    source = site.new(".parquet")
    pq.write_table(pa.table({"id": range(1_000), "x": x}), source)
    job = client.score("picky", source, site.new(), keep=["id"])
    progress = job.wait(END_S)
    assert [(each["row"], each["stage"]) for each in errors_of(job)] == [
        (row, "infer") for row in (0, 63, 64, 500, 501, 999)
    ]
    found = output_of(job)
    kept = [at for at in range(1_000) if at not in {0, 63, 64, 500, 501, 999}]
    assert found["id"].to_pylist() == kept
    assert np.array(found["y"].to_pylist()).ravel().tolist() == [2 * at for at in kept]
    assert (progress.rows_ok, progress.rows_bad) == (994, 6)


def test_too_many_bad_rows_stop_the_job_with_a_line_that_names_the_bound(site: Site, client: Client) -> None:
    source = site.new(".parquet")
    pq.write_table(pa.table({"x": -np.arange(1, 5_001)}), source)
    job = client.score("picky", source, site.new(), max_errors=10)
    with pytest.raises(JobFailed, match="--max-errors 10"):
        job.wait(END_S)
    assert not is_finished(job)


def test_the_same_call_after_success_runs_nothing_again(site: Site, client: Client) -> None:
    source, target = site.rows(40), site.new()
    job = client.score("gated", source, target, keep=["id"])
    job.wait(END_S)
    runs = site.runs()
    again = client.score("gated", source, target, keep=["id"])
    again.wait(END_S)
    assert again.id == job.id
    assert site.runs() == runs
    check_doubled(again, range(1000, 1040))


def test_two_clients_that_start_the_same_job_at_once_share_one(site: Site, client: Client) -> None:
    source, target = site.rows(200), site.new()
    with site.client() as other, ThreadPoolExecutor(2) as at_once:
        jobs = list(at_once.map(lambda each: each.score("gated", source, target, keep=["id"]), (client, other)))
        for job in jobs:
            job.wait(END_S)
    assert jobs[0].id == jobs[1].id
    check_doubled(jobs[0], range(1000, 1200))
    assert sum(map(len, site.runs())) == 200


def test_jobs_retry_runs_the_bad_rows_alone_and_the_output_has_them_then(site: Site, client: Client) -> None:
    values = [float(at) for at in range(1, 101)]
    values[30] = values[77] = 444.0
    source = site.values(values)
    job = client.score("gated", source, site.new(), keep=["id"])
    job.wait(END_S)
    check_doubled(job, values, bad=(30, 77))
    site.cure()
    ran = len(site.runs())
    assert job.retry() == 2
    job.wait(END_S)
    assert [value for run in site.runs()[ran:] for value in run] == [444.0, 444.0]
    table = output_of(job).sort_by("id")
    assert table["id"].to_pylist() == list(range(100))
    assert manifest_of(job)["rows"] == {"in": 100, "ok": 100, "bad": 0, "skipped": 0}
    assert errors_of(job) == []
    assert [name for name in parts_of(job) if "-r1" in name]


def test_an_output_that_holds_something_else_is_refused(site: Site, client: Client) -> None:
    target = site.new()
    target.mkdir()
    (target / "precious.csv").write_text("a\n")
    job = client.score("gated", site.rows(10), target)
    with pytest.raises(JobFailed, match=r"precious\.csv"):
        job.wait(END_S)
    assert [path.name for path in target.iterdir()] == ["precious.csv"]


def test_an_output_of_another_job_is_refused_and_stays_as_it_is(site: Site, client: Client) -> None:
    target = site.new()
    first = client.score("gated", site.rows(10), target, keep=["id"])
    first.wait(END_S)
    second = client.score("gated", site.rows(10, 50), target, keep=["id"])
    with pytest.raises(JobFailed, match="another output"):
        second.wait(END_S)
    check_doubled(first, range(1000, 1010))


def test_input_and_output_in_one_folder_are_refused_before_anything_is_written(site: Site, client: Client) -> None:
    folder = site.new()
    folder.mkdir()
    pq.write_table(pa.table({"x": pa.array([1.0], pa.float32())}), folder / "a.parquet")
    with pytest.raises(Exception, match="output"):
        client.score("gated", folder, folder).wait(END_S)
    with pytest.raises(Exception, match="output"):
        client.score("gated", folder, folder / "scores").wait(END_S)
    assert [path.name for path in folder.iterdir()] == ["a.parquet"]


def test_a_path_outside_the_roots_is_refused_with_the_remedy(site: Site, client: Client, tmp_path: Path) -> None:
    outside = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": pa.array([1.0], pa.float32())}), outside)
    job = client.score("gated", outside, site.new())
    with pytest.raises(JobFailed, match="HEADRACE_BULK_ROOTS"):
        job.wait(END_S)
    job = client.score("gated", site.rows(3), tmp_path / "out")
    with pytest.raises(JobFailed, match="HEADRACE_BULK_ROOTS"):
        job.wait(END_S)
    link = site.new(".parquet")
    link.symlink_to(outside)
    job = client.score("gated", link, site.new())
    with pytest.raises(JobFailed, match="HEADRACE_BULK_ROOTS"):
        job.wait(END_S)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named_with_the_host_that_looked(site: Site, client: Client) -> None:
    job = client.score("gated", site.data / "nowhere.parquet", site.new())
    with pytest.raises(JobFailed, match=r"nowhere\.parquet"):
        job.wait(END_S)


def test_a_missing_column_names_the_close_match(site: Site, client: Client) -> None:
    source = site.new(".parquet")
    pq.write_table(pa.table({"xx": pa.array([1.0], pa.float32()), "other": pa.array([2.0], pa.float32())}), source)
    job = client.score("gated", source, site.new())
    with pytest.raises(JobFailed, match="xx"):
        job.wait(END_S)


def test_a_truncated_parquet_file_is_one_entry_of_the_errors_and_the_others_are_scored(
    site: Site, client: Client
) -> None:
    folder = site.new()
    folder.mkdir()
    for at in range(3):
        pq.write_table(pa.table({"id": [at], "x": pa.array([float(at + 1)], pa.float32())}), folder / f"{at}.parquet")
    whole = (folder / "1.parquet").read_bytes()
    (folder / "1.parquet").write_bytes(whole[: len(whole) // 2])
    job = client.score("gated", folder, site.new(), keep=["id"])
    job.wait(END_S)
    assert output_of(job)["id"].to_pylist() == [0, 2]
    (entry,) = errors_of(job)
    assert entry["file"].endswith("1.parquet")
    assert entry["stage"] == "read"


def test_csv_and_json_lines_give_what_parquet_gives_but_cells_of_csv_stay_text(site: Site, client: Client) -> None:
    values = list(range(1_001, 1_501))  # none of those that the model refuses
    table = pa.table({"id": range(500), "x": [float(value) for value in values]})
    csv, jsonl = site.new(".csv"), site.new(".jsonl")
    pyarrow.csv.write_csv(table, csv)
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    of_csv, of_jsonl = [client.score("gated", source, site.new(), keep=["id"]) for source in (csv, jsonl)]
    of_csv.wait(END_S)
    of_jsonl.wait(END_S)
    check_doubled(of_jsonl, values)
    assert output_of(of_csv)["y"].equals(output_of(of_jsonl)["y"])
    assert output_of(of_csv)["id"].to_pylist() == [str(row) for row in range(500)]


def test_a_column_that_was_guessed_is_noted_before_the_first_row_and_in_a_dry_run(site: Site, client: Client) -> None:
    source = site.new(".parquet")
    pq.write_table(affine_table(vectors(10)).rename_columns(["key", "numbers"]), source)
    note = "column 'numbers' is taken for 'x', as no other fits so well"
    tried = client.score("affine", source, site.new(), dry_run=True)
    tried.wait(END_S)
    sample = tried.sample()
    assert sample is not None
    assert sample.notes == [note]
    job = client.score("affine", source, site.new())
    assert job.wait(END_S).job.notes == (note,)
    assert client.score("affine", _many(site, 10), site.new()).wait(END_S).job.notes == ()


def test_a_limit_scores_the_first_rows_only(site: Site, client: Client) -> None:
    job = client.score("gated", site.rows(100), site.new(), keep=["id"], limit=33)
    assert job.wait(END_S).rows_ok == 33
    check_doubled(job, range(1000, 1033))


def test_a_job_beside_online_requests_lets_both_finish(site: Site, client: Client) -> None:
    job = client.score("affine", _many(site, 200_000), site.new())
    for at in range(50):
        x = np.full((1, 4), float(at), np.float32)
        assert client.predict("affine", {"x": x}, timeout_s=60)["y"].tolist() == [[3.0 * at + 1] * 4]
    assert job.wait(END_S).rows_ok == 200_000


def _many(site: Site, rows: int) -> Path:
    source = site.new(".parquet")
    pq.write_table(affine_table(vectors(rows)), source)
    return source
