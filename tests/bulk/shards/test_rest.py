"""The rest of a slice."""

from __future__ import annotations

from headrace.bulk.shards.rest import rest_of
from headrace.results_store.jobs.records import Slice


def test_nothing_is_left_when_all_rows_are_done() -> None:
    assert rest_of(Slice(file_no=3, row_start=10, rows=5), 3, 15, 5) is None


def test_rest_of_one_file_begins_at_the_next_row() -> None:
    part = Slice(file_no=3, row_start=10, rows=50, range_row=8, byte_start=7, byte_stop=99, est_s=5.0)
    rest = rest_of(part, 3, 40, 30)
    assert rest is not None
    assert (rest.row_start, rest.rows, rest.range_row, rest.byte_start, rest.byte_stop) == (40, 20, 8, 7, 99)
    assert rest.est_s == 2.0


def test_rest_of_several_files_begins_in_the_file_that_was_reached() -> None:
    rest = rest_of(Slice(file_no=3, files=10), 7, 4, 400)
    assert rest is not None
    assert (rest.file_no, rest.files, rest.row_start, rest.rows) == (7, 6, 4, -1)
