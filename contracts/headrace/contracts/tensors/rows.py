"""The rows of named tensors: counted, cut, joined and padded along the axis on which each tensor holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.tensors.codec import Tensors

#: Values up to this size are their own key; of larger ones a digest is kept, which waiting requests can afford.
_SHORT_BYTES: Final = 1024


class RowSpec(Protocol):
    """A tensor of a model's signature, as far as its rows go."""

    @property
    def name(self) -> str:
        """The name of the tensor."""

    @property
    def row_axis(self) -> int | None:
        """The axis along which it holds its rows; None where it has none."""


class RowAxes:
    """The row axes of a model's inputs, or of its outputs.

    Tensors without rows (`per_request`) pass through as they are. Optional tensors may be absent, in all pieces alike.
    """

    def __init__(self, specs: Iterable[RowSpec]) -> None:
        """specs: all inputs, or all outputs."""
        self._axes: Final = {spec.name: spec.row_axis for spec in specs}
        #: Whether every tensor has its rows first, so that arrays may be cut and joined without a look at their axes.
        self.all_first: Final = all(axis == 0 for axis in self._axes.values())

    def count(self, tensors: Tensors) -> int:
        """Return the number of rows; 1 when no tensor has rows."""
        for name, array in tensors.items():
            axis = self._axes[name]
            if axis is not None:
                return int(array.shape[axis])
        return 1

    def cut(self, tensors: Tensors, start: int, stop: int) -> Tensors:
        """Return the rows from `start` to `stop`; views, no copies."""
        return {name: _cut(array, self._axes[name], start, stop) for name, array in tensors.items()}

    def split(self, tensors: Tensors, counts: Sequence[int]) -> list[Tensors]:
        """Return pieces of `counts` rows each, from the first row on; views, no copies."""
        pieces = []
        start = 0
        for count in counts:
            pieces.append(self.cut(tensors, start, start + count))
            start += count
        return pieces

    def join(self, pieces: Sequence[Tensors]) -> Tensors:
        """Return the rows of all pieces one after the other; tensors without rows are those of the first piece."""
        first = pieces[0]
        if len(pieces) == 1:
            return first
        return {
            name: array if (axis := self._axes[name]) is None else np.concatenate([p[name] for p in pieces], axis=axis)
            for name, array in first.items()
        }

    def pad(self, tensors: Tensors, rows: int) -> Tensors:
        """Lengthen every tensor to `rows` rows by repeating its last row.

        A copy of real data is valid input for every model, which zeros are not (division by a length, BYTES).
        Raises ValueError if there are no rows, or more than `rows`.
        """
        return {name: _pad(array, self._axes[name], rows) for name, array in tensors.items()}

    def request_key(self, tensors: Tensors) -> tuple[object, ...]:
        """Return a key that is equal for requests that may share a run: inputs without rows, and which are given."""
        return tuple(
            (name, array.shape, _value_key(array)) if self._axes[name] is None else (name,)
            for name, array in sorted(tensors.items())
        )


def _cut(array: NDArray[Any], axis: int | None, start: int, stop: int) -> NDArray[Any]:
    if axis is None:
        return array
    return array[start:stop] if axis == 0 else array[(slice(None),) * axis + (slice(start, stop),)]


def _pad(array: NDArray[Any], axis: int | None, rows: int) -> NDArray[Any]:
    if axis is None or array.shape[axis] == rows:
        return array
    have = array.shape[axis]
    if not 0 < have < rows:
        raise ValueError(f"{have} rows can't be padded to {rows}")
    last = _cut(array, axis, have - 1, have)
    return np.concatenate([array, np.repeat(last, rows - have, axis=axis)], axis=axis)


def _value_key(array: NDArray[Any]) -> object:
    if array.dtype.kind == "O":
        return tuple(array.reshape(-1).tolist())
    raw = array.tobytes()
    return raw if len(raw) <= _SHORT_BYTES else hashlib.blake2b(raw).digest()
