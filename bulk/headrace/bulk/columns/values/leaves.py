"""The innermost values of a column's rows, in the datatype of an input; bad ones make their row a bad one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.nulls import NullPolicy, fill_value
from headrace.bulk.columns.values.casts import cast
from headrace.bulk.columns.values.narrowing import Cast
from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.datatypes import FLOATS


class LeafReader:
    """Reads values of one column for one input."""

    def __init__(self, column: str, spec: TensorSpec, policy: NullPolicy) -> None:
        """Raise ColumnMismatch when the policy's value is none of the input."""
        self._column = column
        self._spec = spec
        self._nan_allowed = spec.allow_nan or spec.datatype not in FLOATS
        self.fill = fill_value(policy, spec.datatype, spec.name)

    def all_good(self, found: Cast) -> bool:
        """Return whether values may all be given to the model."""
        return not found.bad.size and (self._nan_allowed or bool(_finite(found.values).all()))

    def read(
        self,
        leaves: pa.Array,
        starts: NDArray[np.int64],
        counts: NDArray[np.int64],
        rows: NDArray[np.int64] | None,
        findings: Findings,
    ) -> tuple[NDArray[Any], int]:
        """Return the values from the first start on, and the index of the first of them.

        starts, counts: where the values of each row lie, rising. rows: the positions of these rows in the table; None
        is all.
        """
        first = int(starts[0]) if len(starts) else 0
        stop = int(starts[-1] + counts[-1]) if len(starts) else 0
        part = leaves.slice(first, stop - first)
        found = cast(part, self._spec.datatype)
        values = found.values
        where = _Owners(starts - first, counts, rows)
        if part.null_count:
            values = self._without_nulls(part, values, where, findings)
        for row, place, index in where.first(found.bad):
            text = f"{quoted(part[index].as_py())} is no {self._spec.datatype}"
            findings.refuse([row], "BadValue", f"{self._named(place, counts)}: {text}")
        if not self._nan_allowed:
            self._check_finite(values, where, counts, findings)
        return values, first

    def _without_nulls(self, part: pa.Array, values: NDArray[Any], where: _Owners, findings: Findings) -> NDArray[Any]:
        null = part.is_null().to_numpy(zero_copy_only=False)
        if self.fill is not None:
            values = np.array(values)
            values[null] = self.fill
            return values
        rows = np.array([row for row, _, _ in where.first(np.flatnonzero(null))], np.int64)
        findings.nulls(rows, f"column {self._column!r}")
        return values

    def _check_finite(
        self, values: NDArray[Any], where: _Owners, counts: NDArray[np.int64], findings: Findings
    ) -> None:
        finite = _finite(values)
        if finite.all():
            return
        for row, place, _ in where.first(np.flatnonzero(~finite)):
            message = f"{self._named(place, counts)} is NaN or infinite, which this model forbids"
            findings.refuse([row], "NotFinite", message)

    def _named(self, place: int, counts: NDArray[np.int64]) -> str:
        """Return the words for a value of a row."""
        scalar = not self._spec.shape or not len(counts)
        return f"column {self._column!r}" if scalar else f"column {self._column!r}, element {place}"


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(values if values.dtype.kind == "f" else values.astype(np.float32))
    return finite


class _Owners:
    """The rows that values belong to."""

    def __init__(self, starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64] | None) -> None:
        """starts, counts: of each row, rising. rows: their positions in the table; None is all."""
        self._starts = starts
        self._counts = counts
        self._rows = rows

    def first(self, indexes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
        """Return (row in the table, place in the row, index) of the first value of each row; indexes are rising.

        Values between rows belong to none.
        """
        if not len(indexes):
            return []
        at = np.searchsorted(self._starts, indexes, "right") - 1
        # Of rows that start at one place all but the last are empty.
        place = indexes - self._starts[at]
        owned = (at >= 0) & (place < self._counts[at])
        at, place, indexes = at[owned], place[owned], indexes[owned]
        _, chosen = np.unique(at, return_index=True)
        rows = at if self._rows is None else self._rows[at]
        return list(zip(rows[chosen].tolist(), place[chosen].tolist(), indexes[chosen].tolist(), strict=True))
