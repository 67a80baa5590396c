"""One column as one input: a number, a list or a nested list in each row, or such a list as JSON."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.feeds import EqualRows, FedRows, float_columns, placed
from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.kinds import is_number, is_text, plain
from headrace.bulk.columns.nulls import NullPolicy
from headrace.bulk.columns.values.casts import cast
from headrace.bulk.columns.values.cells import parse_lists, without_empty
from headrace.bulk.columns.values.layout import Layout, gathered, layout_of
from headrace.bulk.columns.values.leaves import LeafReader
from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors

_BRACKETS: Final = re.compile(r"[\s\[]*")


class ColumnFeed:
    """Makes an input of a column."""

    def __init__(self, column: str, spec: TensorSpec, policy: NullPolicy) -> None:
        """Raise ColumnMismatch when the policy's value is none of the input."""
        self.columns = (column,)
        self.float_columns = float_columns(self.columns, spec)
        self._column = column
        self._spec = spec
        self._reader = LeafReader(column, spec, policy)

    def feed(self, table: pa.RecordBatch, findings: Findings) -> FedRows:
        """Read all rows of a table."""
        array = self._read(table.column(self._column), findings)
        whole = self._whole(array)
        if whole is not None:
            return EqualRows(self._spec, whole)
        layout = layout_of(array)
        sizes = _sizes(layout, self._spec.shape)
        fits = self._fitting(layout, sizes, findings)
        if self._spec.varies:
            return self._varying(layout, sizes, fits, findings)
        return EqualRows(self._spec, self._equal(layout, fits, findings))

    def _read(self, raw: pa.Array, findings: Findings) -> pa.Array:
        """Return the column as numbers, lists or, for BYTES, text."""
        array = plain(raw)
        if pa.types.is_null(array.type) and self._spec.shape:
            return pa.nulls(len(array), pa.list_(pa.null()))
        if not is_text(array.type) or (self._spec.datatype == "BYTES" and not self._spec.shape):
            return array
        array = without_empty(array)
        depth = self._json_depth(array)
        if not depth:
            return array
        lists, bad = parse_lists(array, self._spec.datatype, depth)
        for at in bad:
            text = quoted(array[at].as_py())
            message = f"column {self._column!r}: {text} is no JSON list of {self._spec.datatype}"
            findings.refuse([at], "BadValue", message)
        return lists

    def _json_depth(self, cells: pa.Array) -> int:
        """Return how deep the JSON lists are nested that cells must hold; 0: they hold numbers."""
        shape = self._spec.shape
        if shape.count(-1) > 1:
            # The sizes of a flat list are unknown.
            return len(shape)
        # A list of one may be written without brackets.
        least = any(size != 1 for size in shape)
        return min(max(_brackets(cells), least), len(shape))

    def _whole(self, array: pa.Array) -> NDArray[Any] | None:
        """Return all rows of a column of numbers or fixed-size lists, if no row needs a look of its own."""
        values = array
        if pa.types.is_fixed_size_list(array.type):
            size = array.type.list_size
            values = array.values.slice(array.offset * size, len(array) * size)
        elements = math.prod(self._spec.shape)
        if not is_number(values.type) or array.null_count or values.null_count or self._spec.varies:
            return None
        if len(values) != len(array) * elements or not self._reader.all_good(
            found := cast(values, self._spec.datatype)
        ):
            return None
        return found.values.reshape(len(array), *self._spec.shape)

    def _fitting(self, layout: Layout, sizes: NDArray[np.int64], findings: Findings) -> NDArray[np.int64] | None:
        """Return the rows that are no null and have the right shape; None if all are so."""
        wanted = np.array(self._spec.shape, np.int64)
        wrong = ((sizes != wanted) & (wanted != -1)).any(axis=1) | (sizes == 0).any(axis=1)
        wrong[layout.uneven] = True
        refused = list(findings.refused)
        wrong[refused] = False
        if layout.nulls is not None:
            wrong &= ~layout.nulls
            absent = layout.nulls.copy()
            absent[refused] = False
            if self._reader.fill is None or self._spec.varies:
                findings.nulls(np.flatnonzero(absent), f"column {self._column!r}")
        for at in np.flatnonzero(wrong).tolist():
            findings.refuse([at], "WrongShape", self._shape_message(layout, at))
        wrong[refused] = True
        if layout.nulls is not None:
            wrong |= layout.nulls
        return np.flatnonzero(~wrong) if wrong.any() else None

    def _shape_message(self, layout: Layout, at: int) -> str:
        have = layout.sizes[at].tolist()
        if at in layout.uneven:
            found = "lists of different lengths"
        elif len(have) == 1:
            found = f"{have[0]} values" if have[0] != 1 else "1 value"
        else:
            found = f"the shape {have}"
        if self._spec.varies or len(have) > 1:
            return f"column {self._column!r} holds {found}, but {self._spec.describe()} is wanted"
        return f"column {self._column!r} holds {found}, but the model takes {math.prod(self._spec.shape)}"

    def _equal(self, layout: Layout, fits: NDArray[np.int64] | None, findings: Findings) -> NDArray[Any]:
        """Return all rows, each of the shape of the input."""
        count = math.prod(self._spec.shape)
        starts = layout.starts if fits is None else layout.starts[fits]
        counts = np.full(len(starts), count)
        values, first = self._reader.read(layout.leaves, starts, counts, fits, findings)
        rows = gathered(values, starts - first, count)
        if fits is not None:
            some, rows = rows, np.zeros((len(layout.starts), count), values.dtype)
            rows[fits] = some
            if self._reader.fill is not None and layout.nulls is not None:
                rows[layout.nulls] = self._reader.fill
        return rows.reshape(len(layout.starts), *self._spec.shape)

    def _varying(
        self, layout: Layout, sizes: NDArray[np.int64], fits: NDArray[np.int64] | None, findings: Findings
    ) -> FedRows:
        counts = layout.counts
        starts = layout.starts
        if fits is not None:
            values, first = self._reader.read(layout.leaves, starts[fits], counts[fits], fits, findings)
        else:
            values, first = self._reader.read(layout.leaves, starts, counts, None, findings)
        return UnequalRows(self._spec, values, starts - first, sizes)


class UnequalRows:
    """Rows whose shapes vary; only those of one shape make a tensor."""

    lengths = None

    def __init__(
        self, spec: TensorSpec, values: NDArray[Any], starts: NDArray[np.int64], dims: NDArray[np.int64]
    ) -> None:
        """values: of all rows, one after the other. starts: where each row begins. dims: the shape of each row."""
        self._spec = spec
        self._values = values
        self._starts = starts
        self.dims = dims
        self.symbols = spec.symbols

    def take(self, rows: NDArray[np.int64]) -> Tensors:
        """Return the input of some rows. Raises ValueError when their shapes differ."""
        dims = self.dims[rows]
        shape = dims[0].tolist() if len(rows) else [max(size, 0) for size in self._spec.shape]
        if len(rows) and (dims != dims[0]).any():
            raise ValueError(f"rows of {self._spec.name} have different shapes and can't share a batch")
        values = gathered(self._values, self._starts[rows], math.prod(shape))
        return {self._spec.name: placed(self._spec, values.reshape(len(rows), *shape))}


def _brackets(cells: pa.Array) -> int:
    """Return how deep the JSON lists in cells are, as the first of them shows; 0 if they are none."""
    first = next((cell.as_py() for cell in cells if cell.is_valid), "")
    found = _BRACKETS.match(first)
    return found.group().count("[") if found else 0


def _sizes(layout: Layout, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the shape of each row in the input, [rows, rank]; what is nested less deep is read as if it were.

    A row that can't have the shape has a size in it that is no part of the shape.
    """
    have = layout.sizes
    rows, depth = have.shape
    if depth == len(shape):
        return have
    sizes = np.tile(np.array(shape, np.int64), (rows, 1))
    if depth > 1:
        # Sizes of 1 may be left out.
        inner = [index for index, size in enumerate(shape) if size != 1]
        if len(inner) != depth:
            sizes[:] = 0
        else:
            sizes[:, inner] = have
        return sizes
    counts = layout.counts
    if -1 in shape:
        free = shape.index(-1)
        rest = -math.prod(shape)
        sizes[:, free] = np.where(counts % rest == 0, counts // rest, 0)
    else:
        sizes[counts != math.prod(shape)] = 0
    return sizes
