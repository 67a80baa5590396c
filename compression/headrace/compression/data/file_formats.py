"""Readers of data files into columns, rows first: .npz, .npy, .csv, .parquet, .jsonl. Nothing is ever unpickled."""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from headrace.compression.errors import DataError, MissingLibrary
from headrace.contracts.errors import quoted

if TYPE_CHECKING:
    import pyarrow as pa

#: Column name → array, rows first; text is an object array of str or bytes.
Columns: TypeAlias = dict[str, NDArray[Any]]

#: Given all the names in a file, in its order, says which columns to read.
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]

#: What pandas calls the index that it writes beside the columns.
_PANDAS_INDEX: Final = "__index_level_"

#: What broken files make their readers raise.
_BROKEN: Final = (
    ValueError,
    EOFError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_columns(path: Path, choose: Choose) -> Columns:
    """Read some columns of a file, in the format that its suffix names.

    Raises DataError when the file is missing, empty, damaged, of another kind, or has lines of different lengths;
    MissingLibrary for Parquet without pyarrow.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"files of this kind are not read; give one of {', '.join(READERS)}")
    with _translated(path.suffix.lower()):
        if path.stat().st_size == 0:
            raise DataError("the file is empty")
        return read(path, choose)


@contextmanager
def _translated(suffix: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as exc:
        raise DataError(f"this is not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8") from exc
    except OSError as exc:
        raise DataError(f"the file can't be read: {exc.strerror or exc}") from exc
    except _BROKEN as exc:
        raise DataError(f"this is no {suffix} file, or a damaged one: {exc}") from exc


def _read_numpy(path: Path, choose: Choose) -> Columns:
    """Read .npz, or .npy as one column that has the name of the file."""
    # numpy, given a path, leaves a damaged file open.
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
        except ValueError as exc:
            # It also takes whatever it does not know for a pickle, and advises to allow that.
            raise DataError(
                f"this is no {path.suffix} file of numbers or text; pickled objects are never read"
            ) from exc
        if isinstance(loaded, np.ndarray):
            columns = dict.fromkeys(choose([path.stem]), loaded)
        else:
            with loaded:
                columns = {name: _npz_member(loaded, name) for name in choose(loaded.files)}
    for name, column in columns.items():
        if column.ndim == 0:
            raise DataError(f"column {quoted(name)} is a single value without rows")
    return columns


def _npz_member(file: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return file[name]
    except ValueError as exc:
        raise DataError(
            f"column {quoted(name)} holds Python objects or is damaged; save an array of numbers or text, "
            "pickled objects are never read"
        ) from exc


def _read_csv(path: Path, choose: Choose) -> Columns:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        chosen = choose(header)
        at = [header.index(name) for name in chosen]
        rows = [[cells[index] for index in at] for cells in _lines(reader, len(header))]
    return {name: np.array([row[index] for row in rows], dtype=object) for index, name in enumerate(chosen)}


def _check_header(header: list[str]) -> None:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DataError("the first line has no comma; separate the columns with commas")
    if "" in header:
        raise DataError(
            f"column {header.index('') + 1} has no name; give it one, or leave it out if it holds row numbers "
            "(pandas: to_csv(…, index=False))"
        )
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"the column name {quoted(name)} occurs twice in the first line")
    counted = {str(first + index) for index in range(len(header)) for first in (0, 1)}
    if all(map(_is_number, header)) and not counted.issuperset(header):
        raise DataError("the first line holds numbers; it must hold the names of the columns")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(reader: Any, width: int) -> Iterator[list[str]]:
    for cells in reader:
        if cells and len(cells) != width:
            raise DataError(f"line {reader.line_num} has {len(cells)} cells, but the first line names {width} columns")
        if cells:
            yield cells


def _read_jsonl(path: Path, choose: Choose) -> Columns:
    columns: dict[str, list[Any]] = {}
    names: Sequence[str] | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            row = _json_object(line, number)
            if names is None:
                names = choose(list(row))
                columns = {name: [] for name in names}
            for name in names:
                if name not in row:
                    raise DataError(f"line {number} has no {quoted(name)}, which the first line has")
                columns[name].append(row[name])
    return {name: array_of(values, name) for name, values in columns.items()}


def _json_object(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        try:
            # Python's own writer makes NaN and Infinity, which JSON does not have.
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as exc:
            raise DataError(f"line {number} is not JSON: {exc}") from exc
    if not isinstance(row, dict):
        raise DataError(f"line {number} is not a JSON object; each line must be one, column name → value")
    return row


def array_of(values: list[Any], name: str) -> NDArray[Any]:
    """Make a column of one value a row: numbers, text, or nested lists; None among numbers becomes NaN.

    Raises DataError naming the first row of another shape than that of row 0.
    """
    if any(isinstance(value, float | int | None) for value in values):
        values = [float("nan") if value is None else value for value in values]
    shapes = map(_shape, values)
    first = next(shapes, ())
    for row, shape in enumerate(shapes, 1):
        if shape != first:
            raise DataError(
                f"column {quoted(name)} is ragged: row {row} has the shape {list(shape)}, row 0 has {list(first)}; "
                "pad the rows to one size"
            )
    leaf = values[0] if values else None
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    try:
        # numpy would give all text the width of the longest.
        return np.array(values, dtype=object if isinstance(leaf, str) else None)
    except ValueError as exc:
        raise DataError(f"column {quoted(name)} is ragged within a row; pad its lists to one size") from exc


def _shape(value: Any) -> tuple[int, ...]:
    """Return the lengths of nested lists along their first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _read_parquet(path: Path, choose: Choose) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingLibrary("reading Parquet files", "compress") from None
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith(_PANDAS_INDEX)]
            chosen = choose(names)
            table = file.read(columns=list(chosen))
        return {name: _arrow_column(table.column(name).combine_chunks(), name) for name in chosen}
    except pa.ArrowException as exc:
        raise DataError(f"this is no .parquet file, or a damaged one: {str(exc).splitlines()[0]}") from exc


def _arrow_column(array: pa.Array, name: str) -> NDArray[Any]:
    """Turn an Arrow array into numpy; lists of lists into dimensions. Never goes through a Python list of numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array.type, pa.FixedShapeTensorType):
        return np.asarray(array.to_numpy_ndarray())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        sizes = pc.list_value_length(array)
        if array.null_count:
            raise DataError(f"column {quoted(name)} has no value in {array.null_count} of its lists")
        low, high = pc.min_max(sizes).as_py().values()
        if low != high:
            raise DataError(f"column {quoted(name)} is ragged: lists of {low} to {high} values; pad them to one size")
        shape.append(low or 0)
        array = array.flatten()
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


#: Ending of a file's name → what reads it.
READERS: Final[dict[str, Callable[[Path, Choose], Columns]]] = {
    ".npz": _read_numpy,
    ".npy": _read_numpy,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
