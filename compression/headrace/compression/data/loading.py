"""Loading of the data for compression: columns of a file become inputs of the model, and labels.

Rows are counted from 0 in every message, as in `Dataset.row_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.file_formats import Columns, read_columns
from headrace.compression.data.row_layout import check_inputs_of_rows
from headrace.compression.errors import DataError
from headrace.contracts import SignatureMismatch, TensorSpec
from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import as_array
from headrace.contracts.tensors.datatypes import FLOATS, dtype_of

#: How many column names an error lists.
_NAMED: Final = 12

#: Whole numbers beyond this have gaps between them in FP64.
_EXACT_IN_FP64: Final = 2.0**53

_TRUTHS: Final = {"true": "1", "false": "0"}


def read_dataset(path: Path, inputs: Sequence[TensorSpec], label: str | None, *, names: Sequence[str] = ()) -> Dataset:
    """Read rows for a model from .npz, .npy, .csv, .parquet, .jsonl or .ndjson.

    inputs: of the model; each takes the column of its name. A model with one input, whose name no column has, takes
    all columns but the label. A row of n numbers also fits an input of any shape of n elements. label: the column of
    labels, or None when there is none. names: the package's labels; a label written as one of them is that class.
    Columns have the rows first, also where the model has them at another axis; an optional input may have none.
    Numbers become the input's datatype when that keeps them (integers → FP32 as they are: nothing is scaled).
    Raises DataError naming the column and the expectation, MissingLibrary for Parquet without pyarrow.
    """
    try:
        check_inputs_of_rows(inputs)
        columns = read_columns(path, lambda found: _choose(found, inputs, label))
        inputs = [spec for spec in inputs if not spec.optional or spec.name in columns]
        _check_rows(columns)
        labels = None if label is None else _labels(columns.pop(label), label, names)
        return Dataset(_inputs(columns, inputs), labels)
    except DataError as exc:
        raise DataError(f"{path}: {exc.message}") from exc


def infer_inputs(path: Path, label: str | None) -> tuple[TensorSpec, ...]:
    """Return the inputs that a file's columns suit, for a network without a signature.

    Columns of one number a row are taken together, as FP32 [n] of an input `input`; others are an input each. Floats
    are FP32, whole numbers INT64, unless there are only such: then they are FP32 too, but for columns of tensors.
    Raises DataError as `read_dataset` does.
    """
    try:
        columns = read_columns(path, lambda found: [name for name in found if name != label])
        _check_rows(columns)
        if all(column.ndim == 1 for column in columns.values()):
            return (TensorSpec(name="input", datatype="FP32", shape=(len(columns),)),)
        return tuple(
            TensorSpec(name=name, datatype=_inferred_datatype(column), shape=column.shape[1:])
            for name, column in columns.items()
        )
    except DataError as exc:
        raise DataError(f"{path}: {exc.message}") from exc


def _inferred_datatype(column: NDArray[Any]) -> str:
    if column.dtype.kind in "OSUT":
        return "BYTES"
    return "INT64" if column.dtype.kind in "iub" else "FP32"


def _choose(found: Sequence[str], inputs: Sequence[TensorSpec], label: str | None) -> list[str]:
    """Return which columns are needed. Raises DataError for those that aren't there."""
    wanted = [spec.name for spec in inputs if not spec.optional or spec.name in found]
    if label is not None and label not in found:
        raise DataError(f"there is no label column {quoted(label)}; the file has {_listed(found)}")
    if label in wanted:
        raise DataError(f"{quoted(label)} is an input of the model, so it can't be its label too")
    beside = [name for name in found if name != label]
    if len(wanted) == 1 and wanted[0] not in found and beside:
        wanted = beside
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"there is no column {' or '.join(map(quoted, missing))}; the model takes "
            f"{'; '.join(spec.describe() for spec in inputs)}, the file has {_listed(found)}"
        )
    return wanted if label is None else [*wanted, label]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (", ".join(map(quoted, names[:_NAMED])) or "no columns") + more


def _check_rows(columns: Columns) -> None:
    rows = {name: len(column) for name, column in columns.items()}
    if not rows or 0 in rows.values():
        raise DataError("there are no rows in it")
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{quoted(name)} {count}" for name, count in list(rows.items())[:_NAMED])
        raise DataError(f"the columns differ in their number of rows: {counts}")


def _inputs(columns: Columns, inputs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    if all(spec.name in columns for spec in inputs):
        return {spec.name: _shaped(spec, _converted(spec, columns[spec.name], spec.name), spec.name) for spec in inputs}
    (spec,) = inputs
    converted = {name: _converted(spec, column, name) for name, column in columns.items()}
    if len(converted) == 1:
        ((name, array),) = converted.items()
        return {spec.name: _shaped(spec, array, name)}
    for name, array in converted.items():
        if array.ndim > 1:
            raise DataError(
                f"no column has the name of the input {spec.name!r}, and {quoted(name)} is not one number a row, so "
                f"the columns can't be taken together; rename the one that is {spec.describe()}"
            )
    together = np.stack(list(converted.values()), axis=1)
    if _elements(spec) not in {-1, together.shape[1]}:
        raise DataError(
            f"the model takes {spec.describe()}, {_elements(spec)} numbers a row, but there are {together.shape[1]} "
            f"columns beside the label: {_listed(list(converted))}"
        )
    return {spec.name: _shaped(spec, together, "…")}


def _elements(spec: TensorSpec) -> int:
    """Count the elements of one row; -1 if that varies."""
    return -1 if spec.varies else math.prod(spec.shape)


def _shaped(spec: TensorSpec, array: NDArray[Any], name: str) -> NDArray[Any]:
    """Reshape an array to its input, when it has that shape or as many elements a row."""
    shape = array.shape[1:]
    if len(shape) == len(spec.shape) and all(w in (-1, h) for w, h in zip(spec.shape, shape, strict=True)):
        if 0 in shape:
            raise DataError(f"column {quoted(name)} has rows without any element")
        return array
    if len(shape) <= 1 and math.prod(shape) == _elements(spec):
        return array.reshape(len(array), *spec.shape)
    raise DataError(f"column {quoted(name)} has rows of the shape {list(shape)}, but the model takes {spec.describe()}")


def _converted(spec: TensorSpec, column: NDArray[Any], name: str) -> NDArray[Any]:
    """Convert a column to the datatype of its input. Raises DataError when that would change values."""
    takes = f"{spec.datatype} of input {spec.name!r}"
    if spec.datatype != "BYTES":
        column = _suited(_numbers(column, name, takes), spec.datatype, name)
    try:
        array = as_array(column, spec.datatype, name)
    except SignatureMismatch as exc:
        raise DataError(f"column {exc.message.removeprefix('input ')}") from exc
    if not spec.allow_nan and spec.datatype in FLOATS:
        bad = ~np.isfinite(array.astype(np.float32) if spec.datatype == "BF16" else array)
        if bad.any():
            raise DataError(
                f"column {quoted(name)} holds NaN, infinity or nothing in row {np.argwhere(bad)[0][0]}, which input "
                f"{spec.name!r} forbids; leave such rows out"
            )
    return array


def _numbers(column: NDArray[Any], name: str, takes: str) -> NDArray[Any]:
    """Read text as numbers, empty cells as NaN; numbers stay as they are."""
    if column.dtype.kind not in "OSUT":
        return column
    flat = [element.decode("utf-8", "replace") if isinstance(element, bytes) else element for element in column.flat]
    for index, element in enumerate(flat):
        if element is not None and not isinstance(element, str | int | float):
            row = index // max(1, column.size // len(column))
            raise DataError(f"column {quoted(name)} holds {quoted(element)} in row {row}, where {takes} is expected")
    cells = ["" if element is None else str(element).strip() for element in flat]
    cells = [_TRUTHS.get(cell.lower(), cell) or "nan" for cell in cells]
    for number in (int, float):
        try:
            return np.array(list(map(number, cells))).reshape(column.shape)
        except ValueError:
            continue
    index = next(index for index, cell in enumerate(cells) if not _is_float(cell))
    row = index // max(1, column.size // len(column))
    raise DataError(f"column {quoted(name)} holds {quoted(flat[index])} in row {row}, where {takes} is expected")


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _suited(column: NDArray[Any], datatype: str, name: str) -> NDArray[Any]:
    """Change what `as_array` refuses though nothing is lost: truth values ↔ 0 and 1, and whole floats to integers."""
    wanted = dtype_of(datatype).kind
    if column.dtype.kind == "b":
        return column if wanted == "b" else column.astype(np.uint8)
    if column.dtype.kind == "f" and wanted in "iub":
        missing = np.isnan(column)
        if missing.any():
            raise DataError(
                f"column {quoted(name)} has no value in row {np.argwhere(missing)[0][0]}, where {datatype} is expected"
            )
        if _are_whole(column):
            column = column.astype(np.int64)
    if wanted == "b" and column.dtype.kind in "iu" and np.isin(column, (0, 1)).all():
        return column.astype(np.bool_)
    return column


def _are_whole(values: NDArray[Any]) -> bool:
    return bool(np.all((np.abs(values) <= _EXACT_IN_FP64) & (values == np.trunc(values))))


def _labels(column: NDArray[Any], name: str, names: Sequence[str]) -> NDArray[Any]:
    """Return class ids as INT64, other labels as FP64."""
    classes = {text: index for index, text in enumerate(names)}
    if classes and column.ndim == 1 and (texts := _written(column)) is not None and classes.keys() >= set(texts):
        return np.array([classes[text] for text in texts], np.int64)
    if column.dtype.kind in "OSUT":
        column = _label_numbers(column, name, names)
    if column.dtype.kind not in "biuf":
        raise DataError(f"label column {quoted(name)} holds {column.dtype}; labels are numbers or text")
    if column.dtype.kind == "f":
        return _checked_floats(column, name, classes)
    return _checked_ids(column.astype(np.int64), name, classes)


def _written(column: NDArray[Any]) -> list[str] | None:
    """Return labels as a person writes them; None when they can't be names of classes."""
    if column.dtype.kind == "f":
        if not (np.isfinite(column).all() and _are_whole(column)):
            return None
        column = column.astype(np.int64)
    if column.dtype.kind not in "OSUTiu":
        return None
    return [(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)).strip() for item in column.flat]


def _label_numbers(column: NDArray[Any], name: str, names: Sequence[str]) -> NDArray[Any]:
    try:
        return _numbers(column, name, "a number")
    except DataError as exc:
        texts = _written(column) or []
        odd = next((text for text in texts if text not in names and not _is_float(text)), texts[0])
        if names:
            raise DataError(
                f"label column {quoted(name)} holds {quoted(odd)}, which is no label of the model: {_listed(names)}"
            ) from exc
        raise DataError(
            f"label column {quoted(name)} holds text such as {quoted(odd)}, but the package has no labels that say "
            "which class that is; list them under `labels` in its model.toml, or write class ids"
        ) from exc


def _checked_floats(column: NDArray[Any], name: str, classes: dict[str, int]) -> NDArray[Any]:
    bad = ~np.isfinite(column)
    if bad.any():
        row = np.argwhere(bad)[0][0]
        raise DataError(f"label column {quoted(name)} holds NaN, infinity or nothing in row {row}; leave such rows out")
    if classes and column.ndim == 1 and _are_whole(column):
        return _checked_ids(column.astype(np.int64), name, classes)
    return column.astype(np.float64)


def _checked_ids(ids: NDArray[np.int64], name: str, classes: dict[str, int]) -> NDArray[np.int64]:
    if classes and ids.ndim == 1 and (ids.min() < 0 or ids.max() >= len(classes)):
        odd = ids[(ids < 0) | (ids >= len(classes))][0]
        raise DataError(
            f"label column {quoted(name)} holds {odd}, which is none of the model's {len(classes)} labels, "
            f"{_listed(list(classes))}, nor the place of one"
        )
    return ids
