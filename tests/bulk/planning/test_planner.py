"""The planner: every row of every file in one shard, wherever it is taken up again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bulk.planning.cutting import CutPolicy, Pace
from headrace.bulk.planning.planner import Page, Planner, read_cursor
from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.opening import Storages
from headrace.bulk.storage.roots import Roots
from headrace.contracts.jobs import ScoreSpec
from headrace.results_store.jobs.records import Slice

SLOW = CutPolicy(batch_rows=8, pace=Pace(seconds_per_row=0.1, seconds_per_byte=0.001))
QUICK = CutPolicy(batch_rows=8, pace=Pace(seconds_per_row=1e-6, seconds_per_byte=1e-9))


def storage_of(uri: str) -> Storage:
    return Storages(Roots((), local_stack=True)).of(uri)


def parquet(path: Path, rows: int, group: int = 1000) -> Path:
    pq.write_table(pa.table({"x": pa.array(range(rows), pa.float32())}), path, row_group_size=group)
    return path


def planned(spec: ScoreSpec, wanted: int, policy: CutPolicy = SLOW, *, anew: bool = False) -> list[Page]:
    """Plan all of a job. anew: each page by another planner, which begins at the cursor."""
    planner = Planner(spec, storage_of, read_cursor(b""))
    pages = [planner.page(wanted, policy)]
    while not pages[-1].done:
        if anew:
            planner = Planner(spec, storage_of, read_cursor(pages[-1].cursor_bytes))
        pages.append(planner.page(wanted, policy))
    return pages


def rows_of(slices: list[Slice]) -> list[tuple[int, int]]:
    return [(part.file_no, part.row_start + at) for part in slices for at in range(part.rows) if part.files == 1]


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("wanted", [1, 3, 100])
def test_every_row_is_in_one_shard_whoever_goes_on(tmp_path: Path, wanted: int, anew: bool) -> None:
    sizes = (3_000, 700, 1_000)
    for number, rows in enumerate(sizes):
        parquet(tmp_path / f"{number}.parquet", rows, 400)
    spec = ScoreSpec(model="m", inputs=(str(tmp_path),), output="/out")
    pages = planned(spec, wanted, anew=anew)
    slices = [part for page in pages for part in page.slices]
    assert rows_of(slices) == [(number, at) for number, rows in enumerate(sizes) for at in range(rows)]
    assert [file.file_no for page in pages for file in page.files] == [0, 1, 2]


def test_a_small_file_of_slow_rows_is_cut(tmp_path: Path) -> None:
    spec = ScoreSpec(model="m", inputs=(str(parquet(tmp_path / "a.parquet", 30_000, 30_000)),), output="/out")
    slices = [part for page in planned(spec, 1_000) for part in page.slices]
    assert len(slices) > 100
    assert max(part.est_s for part in slices) < 30


def test_small_text_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"x": {row}}}\n' for row in range(20_000)))
    spec = ScoreSpec(model="m", inputs=(str(path),), output="/out")
    slices = [part for page in planned(spec, 1_000) for part in page.slices]
    assert rows_of(slices) == [(0, row) for row in range(20_000)]
    assert len(slices) > 100


def test_small_files_of_quick_rows_are_gathered(tmp_path: Path) -> None:
    for number in range(40):
        parquet(tmp_path / f"{number:03}.parquet", 10)
    spec = ScoreSpec(model="m", inputs=(str(tmp_path),), output="/out")
    (page,) = planned(spec, 1_000, QUICK)
    assert [(part.file_no, part.files, part.rows) for part in page.slices] == [(0, 40, 400)]


def test_shards_end_where_row_groups_do(tmp_path: Path) -> None:
    spec = ScoreSpec(model="m", inputs=(str(parquet(tmp_path / "a.parquet", 10_000, 100)),), output="/out")
    slices = [part for page in planned(spec, 1_000) for part in page.slices]
    inside = [part.row_start for part in slices if part.row_start % 100]
    assert len(inside) < len(slices) / 4  # the first ones, which are short


def test_a_limit_counts_rows_of_files_that_can_only_be_read_whole(tmp_path: Path) -> None:
    import gzip

    for number in range(3):
        with gzip.open(tmp_path / f"{number}.csv.gz", "wt") as file:
            file.write("x\n" + "1.5\n" * 100)
    spec = ScoreSpec(model="m", inputs=(str(tmp_path),), output="/out", limit=150)
    slices = [part for page in planned(spec, 1_000, QUICK) for part in page.slices]
    assert [(part.file_no, part.rows) for part in slices] == [(0, 100), (1, 50)]


def test_only_new_files_are_planned_when_a_plan_is_taken_up_again(tmp_path: Path) -> None:
    parquet(tmp_path / "b.parquet", 10)
    spec = ScoreSpec(model="m", inputs=(str(tmp_path),), output="/out")
    (page,) = planned(spec, 100)
    parquet(tmp_path / "a.parquet", 20)
    again = Planner(spec, storage_of, read_cursor(page.cursor_bytes), {str(tmp_path / "b.parquet")}).page(100, SLOW)
    assert [(file.file_no, file.uri) for file in again.files] == [(1, str(tmp_path / "a.parquet"))]
    assert sum(part.rows for part in again.slices) == 20
