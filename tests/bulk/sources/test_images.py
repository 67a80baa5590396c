"""Folders of images: each file is a row, a file that is gone is a bad row."""

from __future__ import annotations

from pathlib import Path

from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, whole

from headrace.bulk.sources.slices import Wanted, read_slice
from headrace.bulk.storage.base import Storage


def test_each_file_is_a_row_with_its_path_and_bytes(storage: Storage, add: Add) -> None:
    files = [add(f"{number} ü.jpg", bytes([number])) for number in range(20)]
    read = rows_of(storage, files, whole(*files))
    assert read == [
        (file.file_no, 0, {"path": file.uri, "image": bytes([number])}) for number, file in enumerate(files)
    ]
    assert [cut.rows for cut in slices_of(storage, files[0])] == [1]


def test_a_slice_goes_on_in_the_middle_and_ends_where_it_says(storage: Storage, add: Add) -> None:
    files = [add(f"{number}.png", bytes([number])) for number in range(20)]
    read = rows_of(storage, files, whole(*files[5:], rows=3))
    assert [number for number, _, _ in read] == [5, 6, 7]
    assert rows_of(storage, files, whole(*files[5:8], row_start=1)) == read[1:]


def test_a_file_that_is_gone_is_one_bad_row(storage: Storage, add: Add) -> None:
    files = [add(f"{number}.png", b"x") for number in range(3)]
    Path(files[1].uri).unlink()
    assert [number for number, _, _ in rows_of(storage, files, whole(*files))] == [0, 2]
    (bad,) = bad_of(storage, *files)
    assert (bad.file_no, bad.row, bad.stage, bad.input.decode()) == (1, 0, "read", files[1].uri)


def test_an_image_is_not_opened_when_only_its_path_is_wanted(storage: Storage, add: Add) -> None:
    file = add("a.png", b"x")
    Path(file.uri).unlink()
    (batch,) = read_slice([file], whole(file), storage, Wanted(columns=("path",)))
    assert batch.table.to_pylist() == [{"path": file.uri}]
