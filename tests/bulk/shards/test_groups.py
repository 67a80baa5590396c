"""Groups of rows, and the batches in them: every row once, at its place, whatever rows beside it are bad."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.bulk.columns.base import PreparedRows, Refused
from headrace.bulk.shards.groups import Group, gather, group_rows_for, prepare
from headrace.bulk.sources.base import RowBatch
from headrace.contracts.tensors.codec import Tensors
from headrace.results_store.jobs.records import BadRow


class Prepared:
    """Rows whose value is negative are refused, those of value 0 skipped."""

    def __init__(self, values: NDArray[np.int64], *, sorts: bool) -> None:
        self.good = np.flatnonzero(values > 0)
        self.refused = [
            Refused(at=int(at), stage="prepare", type="Negative", message="no") for at in np.flatnonzero(values < 0)
        ]
        self.skipped = np.flatnonzero(values == 0)
        self.lengths: NDArray[np.int64] | None = values[self.good] % 7 if sorts else None
        self.groups: NDArray[np.int64] | None = None
        self._values = values

    def tensors(self, which: NDArray[np.int64]) -> Tensors:
        return {"x": self._values[self.good[which]]}


class Preparation:
    columns: tuple[str, ...] = ("x",)
    float_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows_at_once = 0
    file_uri = ""
    reads_paths = False

    def __init__(self, *, sorts: bool = False) -> None:
        self._sorts = sorts

    def prepare(self, table: pa.RecordBatch) -> PreparedRows:
        return Prepared(table.column("x").to_numpy(), sorts=self._sorts)


def row_batches(values: list[list[int | None]]) -> list[RowBatch]:
    """Make one file of each list, in batches of 3 rows; None is a row that can't be read."""
    found = []
    for file_no, rows in enumerate(values):
        for start in range(0, len(rows), 3):
            piece = rows[start : start + 3]
            good = [start + at for at, value in enumerate(piece) if value is not None]
            bad = [
                BadRow(file_no=file_no, row=start + at, stage="read", type="Torn", message="torn")
                for at, value in enumerate(piece)
                if value is None
            ]
            table = pa.RecordBatch.from_pydict({"x": pa.array([rows[at] for at in good], pa.int64())})
            found.append(
                RowBatch(
                    file_no=file_no,
                    table=table,
                    rows=np.array(good, np.int64),
                    next_row=start + len(piece),
                    bad=bad,
                )
            )
    return found


def groups_of(values: list[list[int | None]], group_rows: int, batch_rows: int, *, sorts: bool = False) -> list[Group]:
    raws = gather(row_batches(values), lambda _: group_rows)
    return [prepare(raw, Preparation(sorts=sorts), batch_rows) for raw in raws]


VALUES = st.lists(st.lists(st.one_of(st.none(), st.integers(-2, 20)), max_size=20), min_size=1, max_size=4)


@given(VALUES, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_every_row_is_in_one_batch_or_bad_or_skipped(
    values: list[list[int | None]], batches: int, batch_rows: int, sorts: bool
) -> None:
    groups = groups_of(values, batches * batch_rows, batch_rows, sorts=sorts)
    numbered = [(file_no, row, value) for file_no, rows in enumerate(values) for row, value in enumerate(rows)]
    ran = sorted(
        (int(group.raw.file_nos[at]), int(group.raw.rows[at]), int(value))
        for group in groups
        for tensors, which in zip(group.batches, group.which, strict=True)
        for at, value in zip(which, tensors["x"], strict=True)
    )
    assert ran == [each for each in numbered if (each[2] or 0) > 0]
    bad = sorted((each.file_no, each.row) for group in groups for each in group.bad)
    assert bad == [(file_no, row) for file_no, row, value in numbered if value is None or value < 0]
    assert sum(group.skipped for group in groups) == sum(value == 0 for _, _, value in numbered)
    assert sum(group.rows for group in groups) == len(numbered)


@given(VALUES, st.integers(1, 4), st.integers(1, 4))
def test_batches_are_cut_at_fixed_positions(values: list[list[int | None]], batches: int, batch_rows: int) -> None:
    starts = np.cumsum([0, *(len(rows) for rows in values)])
    for group in groups_of(values, batches * batch_rows, batch_rows):
        assert group.raw.start % (batches * batch_rows) == 0
        for which in group.which:
            positions = starts[group.raw.file_nos[which]] + group.raw.rows[which]
            assert len(set(positions // batch_rows)) == 1


def test_a_group_says_where_the_slice_goes_on() -> None:
    groups = groups_of([[1, 2, None, 4], [5, 6]], 3, 3)
    assert [(group.raw.file_no, group.raw.next_row) for group in groups] == [(0, 3), (1, 2)]


def test_rows_of_similar_length_run_together() -> None:
    (group,) = groups_of([[8, 3, 1, 10, 15, 5]], 6, 3, sorts=True)
    assert [sorted(tensors["x"] % 7) for tensors in group.batches] == [[1, 1, 1], [3, 3, 5]]


def test_a_bad_row_is_kept_as_json_with_its_error() -> None:
    (group,) = groups_of([[1, -2]], 4, 4)
    (bad,) = group.bad
    assert (bad.row, bad.stage, bad.type, bad.input) == (1, "prepare", "Negative", b'{"x":-2}')


def test_large_rows_make_small_groups() -> None:
    assert group_rows_for(64, 600_000, sorts=False) == 64
    assert group_rows_for(64, 256, sorts=False) == 8192
    assert group_rows_for(64, 0, sorts=True) == 4096


def test_no_group_has_rows_of_two_folders_where_paths_start_there() -> None:
    folders = ["a", "a", "b", "a"]
    raws = list(gather(row_batches([[1, 2], [3], [4, None], [5]]), lambda _: 4, folders.__getitem__))
    assert [raw.rows.tolist() for raw in raws] == [[0, 1, 0], [0], [0]]
    assert [(raw.start, raw.stop) for raw in raws] == [(0, 3), (3, 5), (5, 6)]
    assert [raw.file_no for raw in raws] == [1, 2, 3]
