"""The same command again: what has moved since is said by name, and an option decides."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.eventually import eventually
from tests.workers.bulk.gated_runtime import REFUSED
from tests.workers.bulk.sites import (
    END_S,
    SHARD_ROWS,
    Site,
    check_doubled,
    is_finished,
    manifest_of,
    output_of,
    parts_of,
)

from headrace.contracts import HeadraceError
from headrace.producers import Client, Job
from headrace.producers.jobs.errors import JobCancelled
from headrace.results_store.jobs.job_store import OutputBusy


@pytest.fixture(scope="module", autouse=True)
def worker(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    with site.worker() as process:
        yield process


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with site.client() as client:
        yield client


def write(path: Path, first: int, rows: int = 10) -> None:
    values = range(first, first + rows)
    pq.write_table(pa.table({"id": values, "x": pa.array([float(value) for value in values], pa.float32())}), path)


def ids(job: Job) -> list[int]:
    return sorted(output_of(job)["id"].to_pylist())


def test_a_job_that_is_restarted_while_it_runs_scores_everything_once(site: Site, client: Client) -> None:
    source, target = site.rows(400), site.new()
    site.hold(1_000 + 2 * SHARD_ROWS)
    old = client.score("gated", source, target, keep=["id"])
    eventually(lambda: sum(map(len, site.runs())) >= SHARD_ROWS, 30, "a shard")
    new = client.score("gated", source, target, keep=["id"], restart=True)
    assert new.id != old.id
    site.let_go()
    new.wait(END_S)
    check_doubled(new, range(1000, 1400))
    assert manifest_of(new)["job"] == new.id
    with pytest.raises(JobCancelled):
        old.wait(END_S)
    check_doubled(new, range(1000, 1400))


def test_a_restarted_job_whose_input_is_another_one_leaves_nothing_of_the_old_output(
    site: Site, client: Client
) -> None:
    source, target = site.rows(400), site.new()
    client.score("gated", source, target, keep=["id"]).wait(END_S)
    site.rows(33, 5_000).replace(source)
    new = client.score("gated", source, target, keep=["id"], restart=True)
    new.wait(END_S)
    check_doubled(new, range(5000, 5033))


def test_a_file_that_is_new_in_the_folder_is_said_by_name_and_scored_alone_when_told_so(
    site: Site, client: Client
) -> None:
    folder, target = site.new(), site.new()
    folder.mkdir()
    write(folder / "b.parquet", 1_000)
    job = client.score("gated", folder, target, keep=["id"])
    job.wait(END_S)
    write(folder / "c.parquet", 2_000)
    with pytest.raises(HeadraceError, match=r"c\.parquet.*--add-new"):
        client.score("gated", folder, target, keep=["id"]).wait(END_S)
    again = client.score("gated", folder, target, keep=["id"], add_new=True)
    again.wait(END_S)
    assert again.id == job.id
    assert ids(again) == [*range(1_000, 1_010), *range(2_000, 2_010)]
    assert set(Counter(value for run in site.runs() for value in run).values()) == {1}
    assert is_finished(again)


def test_a_new_file_whose_name_sorts_before_those_that_were_scored_is_scored_too(site: Site, client: Client) -> None:
    folder, target = site.new(), site.new()
    folder.mkdir()
    write(folder / "b.parquet", 1_000)
    client.score("gated", folder, target, keep=["id"]).wait(END_S)
    write(folder / "a.parquet", 2_000)
    again = client.score("gated", folder, target, keep=["id"], add_new=True)
    again.wait(END_S)
    assert ids(again) == [*range(1_000, 1_010), *range(2_000, 2_010)]


def test_an_input_that_changed_after_the_end_is_said_by_name(site: Site, client: Client) -> None:
    source, target = site.rows(20), site.new()
    job = client.score("gated", source, target, keep=["id"])
    job.wait(END_S)
    site.rows(20, 7_000).replace(source)
    with pytest.raises(HeadraceError, match=r"\.parquet.*--restart"):
        client.score("gated", source, target, keep=["id"]).wait(END_S)


def test_an_output_that_was_removed_is_said_by_name(site: Site, client: Client) -> None:
    source, target = site.rows(20), site.new()
    client.score("gated", source, target, keep=["id"]).wait(END_S)
    shutil.rmtree(target)
    with pytest.raises(HeadraceError, match=r"removed.*--restart"):
        client.score("gated", source, target, keep=["id"])


def test_a_retry_that_is_paused_in_the_middle_ends_as_one_that_is_not(site: Site, client: Client) -> None:
    values = [float(at) for at in range(1, 101)]
    bad = range(10, 50)
    for at in bad:
        values[at] = REFUSED
    job = client.score("gated", site.values(values), site.new(), keep=["id"])
    job.wait(END_S)
    check_doubled(job, values, bad=bad)
    site.cure()
    site.hold(REFUSED)
    ran = sum(map(len, site.runs()))
    assert job.retry() == 40
    eventually(lambda: job.progress().shards_running, 30, "the retry")
    job.pause()
    site.let_go()
    eventually(lambda: not job.progress().shards_running, 30, "the pause")
    assert job.status() == "paused"
    job.resume()
    job.wait(END_S)
    table = output_of(job).sort_by("id")
    assert table["id"].to_pylist() == list(range(100))
    assert manifest_of(job)["rows"] == {"in": 100, "ok": 100, "bad": 0, "skipped": 0}
    assert sum(map(len, site.runs())) >= ran + 40
    assert [name for name in parts_of(job) if "-r1" in name]


def test_rows_that_stay_bad_in_a_retry_are_listed_once_and_can_be_tried_again(site: Site, client: Client) -> None:
    values = [float(at) for at in range(1, 51)]
    values[3] = values[40] = REFUSED
    job = client.score("gated", site.values(values), site.new(), keep=["id"])
    job.wait(END_S)
    assert job.retry() == 2
    job.wait(END_S)
    check_doubled(job, values, bad=(3, 40))
    site.cure()
    assert job.retry() == 2
    job.wait(END_S)
    assert ids(job) == list(range(50))
    assert manifest_of(job)["rows"] == {"in": 50, "ok": 50, "bad": 0, "skipped": 0}


def three_large(site: Site) -> Path:
    """A folder of three files of five rows, from 1,000, 1,001 and 1,002 on; each is a shard of its own."""
    folder = site.new()
    folder.mkdir()
    for at in range(3):
        noise = pa.array([b"%d" % at * 1_000_000] * 5)
        values = pa.array([float(1_000 + at)] * 5, pa.float32())
        table = pa.table({"id": range(5), "x": values, "noise": noise})
        pq.write_table(table, folder / f"{at}.parquet", compression="none", use_dictionary=False)
    return folder


def test_a_cancelled_job_keeps_its_parts_and_says_so_in_its_manifest(site: Site, client: Client) -> None:
    site.hold(1_002)
    job = client.score("gated", three_large(site), site.new(), keep=["id"])
    eventually(lambda: parts_of(job), 30, "a part")
    job.cancel()
    site.let_go()
    with pytest.raises(JobCancelled):
        job.wait(END_S)
    eventually((Path(job.output) / "_manifest.json").exists, 30, "the manifest")
    assert manifest_of(job)["state"] == "cancelled"
    assert not is_finished(job)
    assert output_of(job).num_rows == 5 * len(parts_of(job)) < 15
    job.resume()
    job.wait(END_S)
    assert output_of(job).num_rows == 15
    assert manifest_of(job)["state"] == "succeeded"


def test_a_part_that_somebody_removed_is_noticed_before_the_job_succeeds(site: Site, client: Client) -> None:
    site.hold(1_002)
    job = client.score("gated", three_large(site), site.new(), keep=["id"])
    eventually(lambda: parts_of(job), 30, "a part")
    (Path(job.output) / parts_of(job)[0]).unlink()
    site.let_go()
    with pytest.raises(HeadraceError, match=r"gone|missing|part"):
        job.wait(END_S)
    assert not is_finished(job)


def test_a_job_is_refused_an_output_that_another_one_writes_to(site: Site, client: Client) -> None:
    target = site.new()
    site.hold()
    first = client.score("gated", site.rows(300), target, keep=["id"])
    with pytest.raises(OutputBusy, match=first.id):
        client.score("gated", site.rows(300, 5_000), target, keep=["id"])
    site.let_go()
    first.wait(END_S)
    check_doubled(first, range(1_000, 1_300))
    second = client.score("gated", site.rows(300, 6_000), target, keep=["id"])
    with pytest.raises(HeadraceError, match="output"):
        second.wait(END_S)


@pytest.mark.parametrize(
    "name", ["a[1].parquet", "b*.parquet", "c?.parquet", "d\\e.parquet", "{f}.parquet", "~g.parquet"]
)
def test_a_file_whose_name_looks_like_a_pattern_is_scored(site: Site, client: Client, name: str) -> None:
    folder = site.new()
    folder.mkdir()
    write(folder / name, 1_000)
    job = client.score("gated", folder / name, site.new(), keep=["id"])
    job.wait(END_S)
    assert ids(job) == list(range(1_000, 1_010))
