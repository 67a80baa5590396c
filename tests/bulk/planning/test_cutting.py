"""Cutting units into shards: every row once, in order, whatever their sizes."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.planning.cutting import (
    FIRST_BATCHES,
    FIRST_S,
    LAST_S,
    READ_BYTES_PER_S,
    REREAD_SHARE,
    TARGET_S,
    CutPolicy,
    Cutter,
    Pace,
)
from headrace.bulk.sources.base import Unit
from headrace.results_store.jobs.records import InputFile, Slice


def file_of(number: int, rows: int = -1, size: int = 1000) -> InputFile:
    return InputFile(file_no=number, uri=f"/data/{number}", format="parquet", size=size, rows=rows)


def units_of(sizes: list[int]) -> list[Unit]:
    found, first, at = [], 0, 0
    for number, rows in enumerate(sizes):
        found.append(Unit(number=number, first_row=first, rows=rows, byte_start=at, byte_stop=at + 10, size_bytes=10))
        first, at = first + rows, at + 10
    return found


SIZES = st.lists(st.lists(st.integers(0, 300), max_size=6), min_size=1, max_size=5)
PACES = st.sampled_from([Pace(), Pace(seconds_per_row=0.01, seconds_per_byte=0.001), Pace(seconds_per_row=3.0)])


@given(SIZES, PACES, st.integers(1, 64))
def test_every_row_of_every_unit_is_in_one_shard(files: list[list[int]], pace: Pace, batch_rows: int) -> None:
    cutter = Cutter(CutPolicy(batch_rows=batch_rows, pace=pace))
    cut: list[Slice] = []
    for number, sizes in enumerate(files):
        for unit in units_of(sizes):
            cut += cutter.add_unit(file_of(number), unit)
    cut += cutter.finish()
    rows = [(part.file_no, part.row_start + at) for part in cut for at in range(part.rows)]
    assert rows == [(number, at) for number, sizes in enumerate(files) for at in range(sum(sizes))]
    for part in cut:
        units = [unit for unit in units_of(files[part.file_no]) if part.unit <= unit.number < part.unit + part.units]
        assert units[0].first_row == part.range_row
        assert part.range_row <= part.row_start
        assert part.row_start + part.rows <= units[-1].first_row + units[-1].rows
        assert (part.byte_start, part.byte_stop) == (units[0].byte_start, units[-1].byte_stop)


@given(st.lists(st.tuples(st.integers(-1, 50), st.integers(0, 1 << 20)), max_size=50), PACES)
def test_small_files_are_gathered_in_order(files: list[tuple[int, int]], pace: Pace) -> None:
    cutter = Cutter(CutPolicy(batch_rows=8, pace=pace))
    cut: list[Slice] = []
    for number, (rows, size) in enumerate(files):
        cut += cutter.add_file(file_of(number, rows, size))
    cut += cutter.finish()
    assert [number for part in cut for number in range(part.file_no, part.file_no + part.files)] == list(
        range(len(files))
    )
    for part in cut:
        counted = [files[number][0] for number in range(part.file_no, part.file_no + part.files)]
        assert part.rows == (-1 if -1 in counted else sum(counted))


def test_first_shards_are_short_and_the_others_of_the_target() -> None:
    policy = CutPolicy(batch_rows=10, pace=Pace(seconds_per_row=0.001))
    cut = Cutter(policy).add_unit(file_of(0), units_of([200_000])[0])
    assert cut[0].est_s == FIRST_S
    assert max(part.est_s for part in cut) == TARGET_S
    assert all(part.rows % 10 == 0 for part in cut)


def test_the_last_shards_are_short_again_so_that_all_workers_end_together() -> None:
    policy = CutPolicy(batch_rows=1, pace=Pace(seconds_per_row=1.0, seconds_per_byte=1.0), bytes_total=96, workers=8)
    assert policy.seconds(100) == 3.0
    assert policy.seconds(100, cut_bytes=48) == 1.5
    assert policy.seconds(100, cut_bytes=96) == LAST_S


def test_a_short_job_of_one_worker_is_many_shards_all_the_same() -> None:
    policy = CutPolicy(batch_rows=1, pace=Pace(seconds_per_row=1.0, seconds_per_byte=1.0), bytes_total=96)
    assert policy.seconds(100) == 4.0


def test_a_row_group_is_not_cut_into_shards_that_are_mostly_reading() -> None:
    policy = CutPolicy(batch_rows=10, pace=Pace(seconds_per_row=0.001, seconds_per_byte=1e-9), bytes_total=1)
    (unit,) = units_of([100_000])
    unit = msgspec.structs.replace(unit, size_bytes=int(READ_BYTES_PER_S))
    cutter = Cutter(policy)
    cut = cutter.add_unit(file_of(0), unit) + cutter.finish()
    assert {part.rows for part in cut} == {int(1000 * REREAD_SHARE)}
    assert sum(part.rows for part in cut) == 100_000


def test_each_worker_begins_with_a_short_shard() -> None:
    policy = CutPolicy(batch_rows=1, pace=Pace(seconds_per_row=1.0), workers=4)
    assert [policy.seconds(number) for number in range(9)] == [FIRST_S] * 4 + [2 * FIRST_S] * 4 + [4 * FIRST_S]
    blind = CutPolicy(batch_rows=1, workers=4)
    assert [blind.rows(number) for number in (0, 3, 4)] == [FIRST_BATCHES, FIRST_BATCHES, 2 * FIRST_BATCHES]


def test_rows_that_are_sorted_by_length_are_cut_at_whole_windows() -> None:
    pace = Pace(seconds_per_row=0.001, seconds_per_byte=1e-6)
    policy = CutPolicy(batch_rows=32, window_rows=4096, pace=pace, bytes_total=100_000_000)
    assert [policy.rows(number) for number in range(4)] == [2048, 2976, 4096, 4096]
    assert policy.rows(9, cut_bytes=99_999_999) == 2048
    slow = msgspec.structs.replace(policy, pace=Pace(seconds_per_row=1.0))
    assert slow.rows(0) == 2048
    assert msgspec.structs.replace(slow, workers=4).rows(0) == 1024


def test_outputs_that_are_large_bound_a_part() -> None:
    policy = CutPolicy(batch_rows=10, pace=Pace(seconds_per_row=1e-9), output_row_bytes=1 << 20)
    assert policy.rows(100) == 120


def test_a_unit_is_taken_up_where_an_earlier_planner_left_it() -> None:
    cutter = Cutter(CutPolicy(batch_rows=10), cut=3)
    cutter.add_unit(file_of(0), units_of([50, 50])[1], from_row=70)
    (part,) = cutter.finish()
    assert (part.row_start, part.rows, part.range_row) == (70, 30, 50)
