"""NumPy files: rows by arithmetic, types, and what is refused."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, values_of, whole

from headrace.bulk.sources.arrays import npy
from headrace.bulk.sources.arrays.columns import arrow_column, arrow_type
from headrace.bulk.sources.base import InputUnreadable
from headrace.bulk.sources.formats import source_of
from headrace.bulk.storage.base import Storage


def npy_bytes(array: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def npz_bytes(packed: bool = False, **arrays: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def zip_bytes() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("readme.txt", "no arrays here" * 100)
    return sink.getvalue()


IMAGES = np.arange(100 * 3 * 4, dtype=np.float32).reshape(100, 3, 4)


def test_rows_are_lists_of_fixed_size_as_deep_as_the_array(storage: Storage, add: Add) -> None:
    file = add("a.npy", npy_bytes(IMAGES))
    assert source_of(file.uri).schema(file, storage) == pa.schema([("array", pa.list_(pa.list_(pa.float32(), 4), 3))])
    assert [row["array"] for row in values_of(storage, file)] == IMAGES.tolist()


def test_ranges_of_rows_are_units_and_all_rows_are_read_once(
    storage: Storage, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy, "UNIT_BYTES", 48 * 30)
    file = add("a.npy", npy_bytes(IMAGES))
    cuts = slices_of(storage, file)
    assert [(cut.range_row, cut.rows) for cut in cuts] == [(0, 30), (30, 30), (60, 30), (90, 10)]
    assert cuts[-1].byte_stop == file.size
    read = [row for cut in cuts for row in rows_of(storage, [file], cut)]
    assert [(row, values["array"]) for _, row, values in read] == list(enumerate(IMAGES.tolist()))


@pytest.mark.parametrize(("start", "rows"), [(0, 1), (37, 50), (95, 50), (99, -1), (100, -1)])
def test_a_slice_has_the_rows_it_names(storage: Storage, add: Add, start: int, rows: int) -> None:
    stop = min(start + rows, 100) if rows >= 0 else 100
    for file in (
        add("a.npy", npy_bytes(IMAGES)),
        add("a.npz", npz_bytes(x=IMAGES)),
        add("b.npz", npz_bytes(packed=True, x=IMAGES)),
    ):
        read = rows_of(storage, [file], whole(file, row_start=start, rows=rows))
        assert [row for _, row, _ in read] == list(range(start, stop))
        assert [next(iter(values.values())) for _, _, values in read] == IMAGES[start:stop].tolist()


@given(
    npst.arrays(
        st.sampled_from([np.dtype(name) for name in ("?", "i1", ">i4", "u8", "f2", ">f4", "f8", "U3", "S2", "M8[ms]")]),
        npst.array_shapes(min_dims=1, max_dims=3, max_side=4),
    )
)
def test_columns_have_the_values_of_the_array(array: NDArray[Any]) -> None:
    column = arrow_column(array)
    assert column.type == arrow_type(array.dtype, array.shape[1:])
    flat = column
    for _ in range(array.ndim - 1):
        flat = flat.flatten()
    found = flat.to_numpy(zero_copy_only=False)
    if array.dtype.kind in "US":
        assert list(found) == list(array.reshape(-1))
    else:
        np.testing.assert_array_equal(found, array.reshape(-1))


def test_arrays_of_an_archive_are_columns_side_by_side(storage: Storage, add: Add) -> None:
    labels = np.array([f"row {row}" for row in range(100)])
    for packed in (False, True):
        file = add("a.npz", npz_bytes(packed=packed, image=IMAGES, label=labels))
        read = values_of(storage, file, ["label", "image"])
        assert [row["label"] for row in read] == labels.tolist()
        assert [row["image"] for row in read] == IMAGES.tolist()
        assert [cut.rows for cut in slices_of(storage, file)] == [100]


def test_large_arrays_are_read_in_blocks(storage: Storage, add: Add) -> None:
    file = add("a.npz", npz_bytes(a=np.zeros((200_000, 8)), b=np.arange(200_000)))
    read = values_of(storage, file, ["b"])
    assert [row["b"] for row in read] == list(range(200_000))


def test_an_array_without_rows_has_none(storage: Storage, add: Add) -> None:
    for file in (add("a.npy", npy_bytes(IMAGES[:0])), add("a.npz", npz_bytes(x=IMAGES[:0]))):
        assert (slices_of(storage, file), values_of(storage, file)) == ([], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_bytes(np.array([{}, []], object)), "Python objects"),
        (npy_bytes(np.asfortranarray(IMAGES)), "Fortran order; save numpy.ascontiguousarray"),
        (npy_bytes(np.array(5)), "no axis"),
        (npy_bytes(np.zeros(3, "c8")), "arrays of complex64 can't be read"),
        (npy_bytes(np.zeros(3, [("a", "i4")])), "can't be read"),
        (npy_bytes(np.zeros((3, 0))), "no values"),
        (npy_bytes(IMAGES)[:-1], "is truncated"),
        (npy_bytes(IMAGES)[:20], "no readable NumPy file"),
        (b"", "no readable NumPy file"),
        (b"not numpy", "no readable NumPy file"),
    ],
)
def test_what_is_no_array_of_rows_is_refused_with_the_cause(
    storage: Storage, add: Add, content: bytes, message: str
) -> None:
    file = add("a.npy", content)
    for act in (lambda: source_of(file.uri).schema(file, storage), lambda: slices_of(storage, file)):
        with pytest.raises(InputUnreadable, match=rf"a\.npy .*{message}"):
            act()
    assert [bad.row for bad in bad_of(storage, file)] == [-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npz_bytes(a=np.zeros(3), b=np.zeros(4)), "different numbers of rows: a 3, b 4"),
        (npz_bytes(a=np.array([{}], object)), r"can't be read, a\.npy: .*Python objects"),
        (zip_bytes(), "no array"),
        (npz_bytes(a=IMAGES)[:-30], "no readable NumPy archive"),
        (b"", "no readable NumPy archive"),
    ],
)
def test_what_is_no_archive_of_rows_is_refused_with_the_cause(
    storage: Storage, add: Add, content: bytes, message: str
) -> None:
    file = add("a.npz", content)
    for act in (lambda: source_of(file.uri).schema(file, storage), lambda: slices_of(storage, file)):
        with pytest.raises(InputUnreadable, match=rf"a\.npz .*{message}"):
            act()


def test_a_damaged_archive_ends_its_file(storage: Storage, add: Add) -> None:
    content = bytearray(npz_bytes(packed=True, a=np.random.default_rng(0).random((50_000, 4))))
    content[len(content) // 2 : len(content) // 2 + 1000] = bytes(1000)
    file = add("a.npz", bytes(content))
    assert [bad.row for bad in bad_of(storage, file)] == [-1]
    assert rows_of(storage, [file], whole(file))[-1][1] < 50_000
