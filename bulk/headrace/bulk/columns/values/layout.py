"""Where the elements of each row lie among the innermost values of a nested Arrow array."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.kinds import is_list, plain

_EVEN: Final[NDArray[np.int64]] = np.empty(0, np.int64)


class Layout(msgspec.Struct, frozen=True):
    """A nested array, taken apart without a copy.

    leaves: the innermost values. starts: the first leaf of each row. sizes: of each row in each depth of nesting,
    [rows, depth]. nulls: rows that are null, or have a null list inside; None: there are none. uneven: rows
    whose lists of one depth differ in length.
    """

    leaves: pa.Array
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    nulls: NDArray[np.bool_] | None
    uneven: NDArray[np.int64] = _EVEN

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of leaves of each row."""
        return np.asarray(self.sizes.prod(axis=1))


def layout_of(array: pa.Array) -> Layout:
    """Take a nested array apart: numbers, lists of them, lists of lists."""
    array = plain(array)
    rows = len(array)
    starts, spans = np.arange(rows), np.ones(rows, np.int64)
    sizes = np.empty((rows, 0), np.int64)
    nulls: NDArray[np.bool_] | None = None
    uneven = _EVEN
    while is_list(array.type):
        lost = _any_null(array, starts, spans)
        nulls = lost if nulls is None else nulls if lost is None else nulls | lost
        firsts, lengths, children = _lists(array)
        size, differ = _size_per_row(lengths, starts, spans)
        uneven = np.union1d(uneven, differ) if differ.size else uneven
        # A row without lists at this depth has no leaf, wherever it starts.
        starts = firsts[np.minimum(starts, max(len(firsts) - 1, 0))] if len(firsts) else np.zeros(rows, np.int64)
        sizes = np.column_stack([sizes, size])
        spans = spans * size
        array = plain(children)
    return Layout(array, starts, sizes, nulls, uneven)


def _lists(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """Return the first child of each list, its number of children, and all children."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        firsts = (np.arange(len(array)) + array.offset) * size
        return firsts, np.full(len(array), size), array.values
    offsets = array.offsets.to_numpy().astype(np.int64, copy=False)
    return offsets[:-1], np.diff(offsets), array.values


def _size_per_row(
    lengths: NDArray[np.int64], starts: NDArray[np.int64], spans: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the length of the lists of each row, and the rows whose lists differ in it."""
    if len(lengths) == len(starts) and (spans == 1).all():
        return lengths[starts] if starts.size and starts[0] else lengths, _EVEN
    size = np.zeros(len(starts), np.int64)
    some = np.flatnonzero(spans > 0)
    if not some.size:
        return size, _EVEN
    size[some] = lengths[starts[some]]
    inside = within(starts[some], spans[some])
    differs = lengths[inside] != np.repeat(size[some], spans[some])
    if not differs.any():
        return size, _EVEN
    return size, np.unique(np.repeat(some, spans[some])[differs])


def within(starts: NDArray[np.int64], spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indexes of all elements of rows that start and reach so far."""
    before = np.cumsum(spans) - spans
    return np.asarray(np.arange(int(spans.sum())) + np.repeat(starts - before, spans))


def _any_null(array: pa.Array, starts: NDArray[np.int64], spans: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    if not array.null_count:
        return None
    null = array.is_null().to_numpy(zero_copy_only=False)
    found = np.zeros(len(starts), np.bool_)
    owners = np.repeat(np.arange(len(starts)), spans)
    found[owners[null[within(starts, spans)]]] = True
    return found


def gathered(values: NDArray[Any], starts: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Return `count` values from each start on, [starts, count]; a view where they follow each other."""
    if not len(starts) or not count:
        return np.empty((len(starts), count), values.dtype)
    first = int(starts[0])
    if len(starts) * count == int(starts[-1]) + count - first and (np.diff(starts) == count).all():
        return values[first : first + len(starts) * count].reshape(len(starts), count)
    return np.asarray(values[starts[:, None] + np.arange(count)])
