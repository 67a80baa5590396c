"""Rows for a trial: ordinary ones and extreme ones, of every datatype; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import Tensors
from headrace.contracts.tensors.datatypes import FLOATS, dtype_of
from headrace.lifecycle.packages.declared import DeclaredTensor
from headrace.lifecycle.packages.graph_facts import Graph
from headrace.lifecycle.packages.trial.dimensions import size_of
from headrace.lifecycle.packages.trial.layouts import Layout

#: Kinds of rows in a trial, in the order of use: those first that show most. Extreme rows are next to each other.
KINDS: Final = (
    "normal", "times_100", "uniform", "zeros", "huge", "normal", "negative", "times_10", "small", "ones",
    "normal", "minus_huge", "times_100", "uniform",
)  # fmt: skip

#: Rows that only NaN and infinity can tell of: x + 0 * sum(x) depends on its batch mates only if they hold one.
NOT_FINITE: Final = ("nan", "infinity", "some_nan")

#: Kinds of rows whose numbers are all one and the same begin so: a token that changes its batch mates shows beside
#: others only.
_ALL: Final = "all_"

#: The whole numbers tried so of every model: tokens with a meaning are mostly the first.
_TOKENS: Final = 16

#: Upper ends of the ranges tried for whole numbers: flags, small categories, vocabularies.
RANGES: Final = (2, 50, 1000, 30000)

#: From this end on, inputs of 8 bits hold all values: pixels and quantized numbers, which are rarely indices.
BYTE: Final = 256

#: Values of what a model takes once a run, a number that is no row.
_PARAMETERS: Final = (1.0, 0.0, 2.0, 0.5)
_WHOLE_PARAMETERS: Final = (1, 0, 2, 16000, 8000)

#: Choices of `Recipe.parameters` from here on are values of the graph; so many of these are tried, and as lengths if
#: they aren't longer than this.
_FROM_GRAPH: Final = 100
_MOST_FROM_GRAPH: Final = 6
_LONGEST: Final = 512

#: The seed with which inputs are made that decide whether a layout runs at all: flags that are set, ones.
SURE_SEED: Final = 1

_WORDS: Final = (b"a", b"b c", b"", b"word another third", b"3", b"2.5", "é".encode(), b"Z" * 40)

#: "huge" is this far from what a network is used to, and its square still is a finite FP16.
_HUGE: Final = 1e4

Array = NDArray[Any]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe for the inputs of one trial.

    sizes: symbol → size. ranges: input of whole numbers → their upper end. parameters: which of the values that are
    tried for inputs without rows. given: optional inputs that are present.
    """

    sizes: dict[str, int]
    ranges: dict[str, int] = {}
    parameters: int = 0
    given: frozenset[str] = frozenset()


class Rows(Protocol):
    """A source of rows for a trial; a row is a dict of arrays with one row each."""

    #: Whether they are real: then they are not made extreme beyond what was given.
    real: bool

    def take(self, kinds: Sequence[str], recipe: Recipe, seed: int) -> list[Tensors]:
        """Return rows, one of each kind."""
        ...

    def shared(self, recipe: Recipe, seed: int) -> Tensors:
        """Return the inputs without rows, which go with any rows."""
        ...


class RowMaker:
    """Makes rows."""

    real = False

    def __init__(self, inputs: Sequence[DeclaredTensor], layout: Layout, graph: Graph) -> None:
        """inputs: without the constants. graph: with the values that rows had better hold."""
        self._inputs = inputs
        self._layout = layout
        self._graph = graph

    def single_kinds(self) -> list[str]:
        """Return kinds of rows of one value each: tokens, and what the graph compares data with."""
        tokens = [float(number) for number in range(_TOKENS)] if self.whole_inputs() else []
        near = [value + step for value in self._graph.numbers for step in (0.0, 1.0, -1.0)]
        words = [float(number) for number in range(len(self._graph.words))]
        return [f"{_ALL}{value}" for value in dict.fromkeys([*tokens, *near, *words])]

    def row(self, kind: str, recipe: Recipe, seed: int) -> Tensors:
        """Return one row of a kind."""
        made: Tensors = {}
        for position, tensor in enumerate(self._with_rows(recipe)):
            axis = self._layout.axes[tensor.name]
            assert axis is not None
            random = np.random.default_rng([seed, position])
            shape = self._shape(tensor.name, recipe)
            if tensor.datatype == "BYTES":
                values = _words(kind, shape, random, self._graph.words)
            else:
                values = _values(tensor.datatype, kind, shape, random, recipe.ranges.get(tensor.name, 2))
            made[tensor.name] = np.expand_dims(values, axis)
        return made

    def take(self, kinds: Sequence[str], recipe: Recipe, seed: int) -> list[Tensors]:
        """Return fresh rows, one of each kind."""
        return [self.row(kind, recipe, 1000 * seed + number) for number, kind in enumerate(kinds)]

    def shared(self, recipe: Recipe, seed: int) -> Tensors:
        """Return the inputs without rows, which go with any rows."""
        made: Tensors = {}
        for position, tensor in enumerate(self._without_rows(recipe)):
            own_seed = seed if seed == SURE_SEED else seed + 100 * position
            shape = self._shape(tensor.name, recipe)
            made[tensor.name] = _parameter(tensor.datatype, shape, self._value_of(tensor.datatype, recipe), own_seed)
        return made

    def parameter_choices(self) -> list[int]:
        """Return the choices of `Recipe.parameters` that stand for values which the graph compares with."""
        return list(range(_FROM_GRAPH, _FROM_GRAPH + min(len(self._graph.numbers), _MOST_FROM_GRAPH)))

    def lengths(self) -> list[int]:
        """Return sizes that the graph may compare a length with."""
        whole = [int(value) for value in self._graph.numbers if value.is_integer() and 0 < value <= _LONGEST]
        return whole[:_MOST_FROM_GRAPH]

    def _value_of(self, datatype: str, recipe: Recipe) -> float:
        choice = recipe.parameters
        if choice >= _FROM_GRAPH:
            return self._graph.numbers[choice - _FROM_GRAPH]
        values: Sequence[float] = _PARAMETERS if datatype in FLOATS else _WHOLE_PARAMETERS
        return values[choice % len(values)]

    def whole_inputs(self) -> list[str]:
        """Return the inputs of whole numbers that have rows."""
        return [
            tensor.name
            for tensor in self._inputs
            if self._layout.axes[tensor.name] is not None and dtype_of(tensor.datatype).kind in "iu"
        ]

    def byte_inputs(self) -> list[str]:
        """Return those of 8 bits."""
        eight = {tensor.name for tensor in self._inputs if tensor.datatype in {"INT8", "UINT8"}}
        return [name for name in self.whole_inputs() if name in eight]

    def _with_rows(self, recipe: Recipe) -> list[DeclaredTensor]:
        return [each for each in self._present(recipe) if self._layout.axes[each.name] is not None]

    def _without_rows(self, recipe: Recipe) -> list[DeclaredTensor]:
        return [each for each in self._present(recipe) if self._layout.axes[each.name] is None]

    def _present(self, recipe: Recipe) -> list[DeclaredTensor]:
        return [each for each in self._inputs if not each.optional or each.name in recipe.given]

    def _shape(self, name: str, recipe: Recipe) -> tuple[int, ...]:
        return tuple(size_of(dim, recipe.sizes) or 1 for dim in self._layout.row_dims(name))


def _values(datatype: str, kind: str, shape: tuple[int, ...], random: np.random.Generator, upper: int) -> Array:
    dtype = dtype_of(datatype)
    if datatype in FLOATS:
        with np.errstate(over="ignore"):
            return _floats(kind, shape, random).astype(dtype)
    if datatype == "BOOL":
        return _flags(kind, shape, random)
    limits = np.iinfo(dtype)
    if upper >= BYTE and limits.max < BYTE and kind == "huge":
        return np.full(shape, limits.max, dtype)
    if upper >= BYTE and limits.max < BYTE and kind not in {"zeros", "ones"} and not kind.startswith(_ALL):
        return random.integers(limits.min, limits.max + 1, shape).astype(dtype)
    values = _whole(kind, shape, random, min(upper, limits.max))
    return np.clip(values, limits.min, limits.max).astype(dtype)


def _floats(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    normal = random.standard_normal(shape, np.float32)
    factors = {"times_100": 100.0, "times_10": 10.0, "small": 0.01}
    constants = {"zeros": 0.0, "ones": 1.0, "huge": _HUGE, "minus_huge": -_HUGE, "nan": np.nan, "infinity": np.inf}
    if kind in constants:
        return np.full(shape, constants[kind], np.float32)
    if kind.startswith(_ALL):
        return np.full(shape, float(kind.removeprefix(_ALL)))
    if kind == "uniform":
        return random.random(shape, np.float32)
    if kind == "negative":
        return -np.abs(normal)
    if kind == "some_nan":
        return np.where(random.random(shape) < 0.2, np.float32(np.nan), normal)
    return normal * np.float32(factors.get(kind, 1.0))


def _flags(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if kind in {"zeros", "ones"}:
        return np.full(shape, kind == "ones")
    return random.random(shape) < 0.5


def _whole(kind: str, shape: tuple[int, ...], random: np.random.Generator, upper: int) -> Array:
    constants = {"zeros": 0, "ones": 1, "huge": upper - 1}
    if kind in constants:
        return np.full(shape, constants[kind])
    if kind.startswith(_ALL):
        return np.full(shape, int(np.clip(float(kind.removeprefix(_ALL)), -(2.0**62), 2.0**62)))
    # Half of the rows hold small numbers: a mask of thousands drowns what the model computes.
    return random.integers(0, upper if kind in {"normal", "times_100", "times_10"} else min(upper, 2), shape)


def _words(kind: str, shape: tuple[int, ...], random: np.random.Generator, more: Sequence[bytes]) -> Array:
    flat = np.empty(int(np.prod(shape)), dtype=object)
    if kind.startswith(_ALL) and more:
        flat[:] = [more[int(float(kind.removeprefix(_ALL))) % len(more)]] * flat.size
        return flat.reshape(shape)
    # Half of them are found nowhere else, so that a word which moves is noticed.
    own = (b"w%d" % number for number in random.integers(0, 1_000_000, flat.size))
    known = random.integers(0, 2 * len(_WORDS), flat.size)
    flat[:] = [_WORDS[index] if index < len(_WORDS) else word for index, word in zip(known, own, strict=True)]
    return flat.reshape(shape)


def _parameter(datatype: str, shape: tuple[int, ...], value: float, seed: int) -> Array:
    """Return an input without rows, which a model takes once a run: one number as it is, a table made up."""
    random = np.random.default_rng([seed, 1000])
    if datatype == "BYTES":
        return _words("normal", shape, random, ())
    if int(np.prod(shape)) > 1 or datatype == "BOOL":
        plain = seed == SURE_SEED and datatype not in FLOATS
        return _values(datatype, "ones" if plain else "normal", shape, random, 2)
    dtype = dtype_of(datatype)
    with np.errstate(over="ignore"):
        if datatype in FLOATS:
            return np.full(shape, value).astype(dtype)
        limits = np.iinfo(dtype)
        return np.full(shape, int(np.clip(value, max(limits.min, -(2.0**62)), min(limits.max, 2.0**62)))).astype(dtype)


def nudged(row: Tensors, seed: int) -> Tensors | None:
    """Return a row whose floats differ by about one rounding, as another order of additions would make them.

    None when the row has no floats.
    """
    steps = {"FP16": 1e-3, "BF16": 8e-3, "FP32": 1e-6, "FP64": 1e-14}
    random = np.random.default_rng(seed)
    changed = dict(row)
    for name, array in row.items():
        step = next((size for datatype, size in steps.items() if array.dtype == dtype_of(datatype)), 0.0)
        if step:
            signs = random.choice((-step, step), array.shape)
            with np.errstate(invalid="ignore", over="ignore"):
                changed[name] = (array.astype(np.float64) * (1.0 + signs)).astype(array.dtype)
    return None if all(changed[name] is row[name] for name in row) else changed


def joined(rows: Sequence[Tensors], axes: Mapping[str, int | None], shared: Tensors) -> Tensors:
    """Return the inputs of a run of these rows."""
    return {name: np.concatenate([row[name] for row in rows], axis=axes[name]) for name in rows[0]} | shared


def cut_rows(inputs: Tensors, axes: Mapping[str, int | None], names: Iterable[str]) -> list[Tensors]:
    """Return the rows of whole inputs one by one."""
    with_rows = [name for name in names if name in inputs and axes[name] is not None]
    count = min((inputs[name].shape[axes[name] or 0] for name in with_rows), default=0)
    return [{name: np.take(inputs[name], [index], axis=axes[name]) for name in with_rows} for index in range(count)]
