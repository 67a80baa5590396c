"""Candidate row dimensions of a model's inputs, read from its file's declaration; a trial decides."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from headrace.contracts import PackageError
from headrace.contracts.errors import quoted
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.trial.dimensions import Dims, is_nameless, named_dims

#: Names that mean the rows of a batch wherever they stand.
_BATCH: Final = re.compile(r".*batch.*|num_(samples|rows|examples)|n_samples|bsz?|rows?", re.IGNORECASE)

#: Names that mean it when they stand first.
_BATCH_FIRST: Final = re.compile(r"[nNbB]|s0|samples|examples")

#: Ranks tried for an input whose file doesn't tell its own: tables are most common.
_RANKS: Final = (2, 1, 3, 4)


#: Input → the dimension that holds its rows; None is none.
Axes: TypeAlias = dict[str, int | None]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The dimension in which each input holds its rows.

    dims: the dimensions of each input, all of them. axes: that of the rows; None where an input has none.
    symbol: the rows' name in the file, "" for none. row_sizes: the numbers of rows that the model runs, if not any.
    """

    dims: dict[str, Dims]
    axes: dict[str, int | None]
    symbol: str = ""
    row_sizes: tuple[int, ...] = ()

    @property
    def has_rows(self) -> bool:
        """Whether any input has rows."""
        return any(axis is not None for axis in self.axes.values())

    def row_dims(self, name: str) -> Dims:
        """Return the dimensions of an input without that of the rows."""
        axis = self.axes[name]
        # Exporters write one name for all that varies: besides the rows, their name stands for any size.
        dims = [f"{name}[{at}]" if dim == self.symbol else dim for at, dim in enumerate(self.dims[name])]
        return tuple(dim for at, dim in enumerate(dims) if at != axis)

    def runs_as(self, rows: int) -> int:
        """Return how many rows run for a number of rows: the next of `row_sizes`."""
        return next((size for size in self.row_sizes if size >= rows), rows)

    @property
    def most_rows(self) -> int:
        """The most rows of one run; 0 is any number."""
        return self.row_sizes[-1] if self.row_sizes else 0


def candidates(
    model: DeclaredModel,
    *,
    rows_at: Mapping[str, int] | None = None,
    row_sizes: Sequence[int] = (),
    parameters: Collection[str] = (),
) -> list[Layout]:
    """Return the layouts to try, the likeliest first; the last has no rows at all.

    model: without the inputs that are constants. rows_at: tensor → axis, as a person gave them. parameters: inputs that
    hold no rows.
    Raises PackageError when a tensor of `rows_at` does not exist or has no such axis.
    """
    given = dict(rows_at or {})
    _check_given(model, given)
    unknown = any(tensor.dims is None for tensor in model.inputs)
    found: list[Layout] = []
    for rank in _RANKS if unknown else _RANKS[:1]:
        dims = {tensor.name: named_dims(tensor, rank) for tensor in model.inputs}
        for layout in _layouts(model, dims, given, tuple(sorted(set(row_sizes))), parameters):
            if not any(_same(layout, other) for other in found):
                found.append(layout)
    # A model is tried without rows only after every rank was tried with them.
    return sorted(found, key=lambda layout: not layout.has_rows)


def _same(one: Layout, other: Layout) -> bool:
    """Return whether two layouts differ at most in the name of the rows."""
    return (one.dims, one.axes, one.row_sizes) == (other.dims, other.axes, other.row_sizes)


def _check_given(model: DeclaredModel, given: Mapping[str, int]) -> None:
    tensors = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
    for name, axis in given.items():
        if name not in tensors:
            raise PackageError(f"--rows-at names {quoted(name)}, but the model's tensors are {', '.join(tensors)}")
        dims = tensors[name].dims
        if axis < 0 or (dims is not None and axis >= len(dims)):
            raise PackageError(
                f"--rows-at {name}={axis}: {name!r} has the dimensions 0 to {len(dims) - 1 if dims else 0}"
                if dims is None or dims
                else f"--rows-at {name}={axis}: {name!r} is a single value, which has no rows"
            )


def _layouts(
    model: DeclaredModel,
    dims: Mapping[str, Dims],
    given: Mapping[str, int],
    row_sizes: tuple[int, ...],
    parameters: Collection[str],
) -> Iterator[Layout]:
    plain = (tensor.name for tensor in model.inputs if not tensor.sequence)
    free = {name: dims[name] for name in plain if name in given or name not in parameters}
    wanted = {name: axis for name, axis in given.items() if name in free}
    likely, unlikely = ([_from_given(free, wanted)], []) if wanted else _axes(free)
    for symbol, axes in likely:
        yield from _layout(dims, axes, symbol, row_sizes)
    for frozen in _fixed_batches(model, free) if not wanted else ():
        yield from _layout(
            dims, {name: 0 if each and each[0] == frozen and each != (1,) else None for name, each in free.items()}
        )
    for symbol, axes in unlikely:
        yield from _layout(dims, axes, symbol, row_sizes)
    yield Layout(dims=dict(dims), axes=dict.fromkeys(dims))


def _layout(
    dims: Mapping[str, Dims], axes: Axes, symbol: str = "", row_sizes: tuple[int, ...] = ()
) -> Iterator[Layout]:
    """Yield the layout with these axes, unless its inputs disagree on a fixed number of rows."""
    sizes = {dims[name][axis] for name, axis in axes.items() if axis is not None}
    frozen = tuple(sorted(size for size in sizes if isinstance(size, int)))
    if len(frozen) <= 1 and sizes:
        whole = {name: axes.get(name) for name in dims}
        yield Layout(dims=dict(dims), axes=whole, symbol=symbol, row_sizes=frozen or row_sizes)


def _axes(dims: Mapping[str, Dims]) -> tuple[list[tuple[str, Axes]], list[tuple[str, Axes]]]:
    """Return the rows' symbol and the axis of each input, the likeliest first; and those tried after a fixed batch."""
    names = [dim for each in dims.values() for dim in each if isinstance(dim, str) and not is_nameless(dim)]
    symbols = {symbol: _first_axis(dims, symbol) for symbol in dict.fromkeys(names)}
    batches = [
        symbol for symbol in sorted(symbols, key=lambda each: symbols[each]) if _is_batch(symbol, symbols[symbol])
    ]
    others = [symbol for symbol in symbols if symbol not in batches]
    likely = [*batches, *(symbol for symbol in others if symbols[symbol] == 0)]
    named = [(symbol, {name: _axis_of(each, symbol) for name, each in dims.items()}) for symbol in likely]
    first = {name: _varying(each, 0) for name, each in dims.items()}
    # Where a name says what the rows are, another axis than theirs is no better guess.
    rest = [] if batches else [symbol for symbol in others if symbols[symbol] > 0]
    after = [(symbol, {name: _axis_of(each, symbol) for name, each in dims.items()}) for symbol in rest]
    # The state of a recurrent model has its layers first, of a fixed number.
    either = {
        name: next((axis for axis in (0, 1) if _nameless(each, axis) is not None), None) for name, each in dims.items()
    }
    second = {name: _nameless(each, 1) for name, each in dims.items()}
    # Series with the time first, and beside them a vector of one number for each, such as its length.
    vectors = {
        name: 0 if len(each) == 1 and _nameless(each, 0) is not None else second[name] for name, each in dims.items()
    }
    beside = [("", vectors)] if vectors != second and any(axis is not None for axis in second.values()) else []
    return [*named, ("", first), ("", either)], [*after, *beside, ("", second)]


def _varying(dims: Dims, axis: int) -> int | None:
    return axis if len(dims) > axis and isinstance(dims[axis], str) else None


def _nameless(dims: Dims, axis: int) -> int | None:
    return axis if _varying(dims, axis) is not None and is_nameless(str(dims[axis])) else None


def _from_given(dims: Mapping[str, Dims], given: Mapping[str, int]) -> tuple[str, Axes]:
    symbols = [dims[name][axis] for name, axis in given.items() if axis < len(dims[name])]
    symbol = next((each for each in symbols if isinstance(each, str)), "")
    axes = {name: given[name] if name in given else _axis_of(each, symbol) for name, each in dims.items()}
    return ("" if is_nameless(symbol) else symbol), axes


def _first_axis(dims: Mapping[str, Dims], symbol: str) -> int:
    return min((each.index(symbol) for each in dims.values() if symbol in each), default=0)


def _is_batch(symbol: str, axis: int) -> bool:
    return _BATCH.fullmatch(symbol) is not None or (axis == 0 and _BATCH_FIRST.fullmatch(symbol) is not None)


def _axis_of(dims: Dims, symbol: str) -> int | None:
    if symbol in dims:
        return dims.index(symbol)
    return 0 if dims and isinstance(dims[0], str) and is_nameless(dims[0]) else None


def _fixed_batches(model: DeclaredModel, dims: Mapping[str, Dims]) -> list[int]:
    """Return the numbers of rows that inputs may fix in their first dimension, the likeliest first."""
    # A single number is a parameter; a model of vectors alone takes one vector.
    firsts = [each[0] for each in dims.values() if each and each != (1,)]
    if not any(len(each) > 1 for each in dims.values()):
        return []
    sizes = [size for size in dict.fromkeys(firsts) if isinstance(size, int)]
    if len(set(firsts)) == 1 and sizes and sizes[0] > 1:
        return sizes
    return [size for size in sizes if all(_starts_with(tensor, size) for tensor in model.outputs)]


def _starts_with(tensor: DeclaredTensor, size: int) -> bool:
    return tensor.dims is not None and tensor.dims[:1] == (size,)
