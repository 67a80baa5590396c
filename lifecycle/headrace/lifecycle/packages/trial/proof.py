"""Proves row independence: a row has the same answer alone and in any batch. One counterexample disproves it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from headrace.lifecycle.packages.trial.co_batched_rows import CoBatchedRows, Counterexample
from headrace.lifecycle.packages.trial.dimensions import is_nameless
from headrace.lifecycle.packages.trial.layouts import Layout
from headrace.lifecycle.packages.trial.runs import Trial
from headrace.lifecycle.packages.trial.samples import KINDS, NOT_FINITE, SURE_SEED, Recipe, Rows

#: Rows of a round, for models of which a row takes at most so many seconds.
_ROUND_ROWS: Final = ((0.004, 14), (0.03, 9), (math.inf, 5))

#: Numbers of rows with which the outputs' axes are found: 1 and two that differ in all but chance.
_COUNTS: Final = (1, 2, 3, 5)

#: A batch as large as a worker's largest is run if it takes no longer than this.
_MANY_ROWS_S: Final = 0.5

#: Rounds with fresh rows: usually; and of outputs whose dimensions are called otherwise than the inputs' rows, since a
#: detector may find as many boxes as there are images by chance.
_ROUNDS: Final = 2
_SUSPICIOUS_ROUNDS: Final = 8

#: Of models of which a row takes longer, each row is run about six times, not ten.
_SLOW_S: Final = 0.02

#: Rows of one value each that are tried of such a model.
_FEW_VALUES: Final = 6


class Budget:
    """Seconds that rounds beyond the needed ones may take."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: in seconds."""
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds left; below 0 when it is spent."""
        return self._end - self._clock()


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions of a model's service: whether rows may hold NaN, and how many share a run at most."""

    allow_nan: bool = True
    max_rows: int = 64


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the trial of one layout.

    axes: output → the dimension that holds the rows; None is none. against: why rows are not independent; None if they
    are. rows: how many were compared. one_row: whether the model runs rows one at a time only.
    """

    layout: Layout
    axes: dict[str, int | None]
    recipes: tuple[Recipe, ...]
    against: Counterexample | None
    rows: int
    one_row: bool = False


class Prover:
    """Tries rows of one layout alone and with batch mates."""

    def __init__(self, trial: Trial, recipe: Recipe, rows: Rows, budget: Budget, terms: Terms) -> None:
        """recipe: with which one row runs. rows: made ones, or a person's."""
        self._trial = trial
        self._recipe = recipe
        self._source = rows
        self._budget = budget
        self._terms = terms
        self._compared = 0
        #: Seconds of a row by itself, and of one in the largest batch so far.
        self._row_s = 0.0
        self._large_row_s = 0.0
        self._largest = 1
        self._axes: dict[str, int | None] = {}

    def prove(self, *, axes_only: bool = False) -> Proof:
        """Compare rows until one disproves independence, or the budget is spent.

        axes_only: nothing is compared beyond what tells where outputs hold their rows.
        """
        recipes = [self._recipe]
        if not self._find_axes():
            return self._proof(recipes, Counterexample(finding="refused"), one_row=True)
        if all(axis is None for axis in self._axes.values()):
            return self._proof(recipes, Counterexample(finding="no output"))
        against = self._batch(self._recipe, 40, ("normal", "times_10", "uniform")).changes_again()
        # A row that always runs by itself has no batch mates.
        if against is None and self._trial.layout.most_rows != 1 and not axes_only:
            against = self._compare_all(recipes)
        return self._proof(recipes, against)

    def _compare_all(self, recipes: list[Recipe]) -> Counterexample | None:
        """Go through all rounds; recipes: those that were tried, to be added to."""
        against = self._round(self._recipe, 1)
        # Tokens have meanings, which thresholds of deep networks rarely have: those are tried where it is quick.
        if against is None and not self._source.real and (self._trial.maker.whole_inputs() or self._budget.left() > 0):
            against = self._single_values()
        for recipe in self._variants() if against is None else ():
            recipes.append(recipe)
            against = self._round(recipe, 2)
            if against is not None or (recipe.sizes != self._recipe.sizes and self._budget.left() < 0):
                break
        seed = 3
        while against is None and seed < 3 + self._wanted_rounds() and self._budget.left() > 0:
            against = self._round(recipes[seed % len(recipes)], seed)
            seed += 1
        return against

    def _proof(self, recipes: list[Recipe], against: Counterexample | None, *, one_row: bool = False) -> Proof:
        return Proof(
            layout=self._trial.layout,
            axes=self._axes,
            recipes=tuple(recipes),
            against=against,
            rows=self._compared,
            one_row=one_row,
        )

    def _variants(self) -> Iterator[Recipe]:
        """Yield other ways to call the model: other sizes, other values without rows, optional inputs given."""
        trial, recipe = self._trial, self._recipe
        if self._source.real:
            return
        others = []
        if any(axis is None for axis in trial.layout.axes.values()):
            choices = [*(recipe.parameters + step for step in (1, 2, 3)), *trial.maker.parameter_choices()]
            others = [msgspec.structs.replace(recipe, parameters=choice) for choice in choices]
        optional = frozenset(tensor.name for tensor in trial.declared.inputs if tensor.optional)
        if optional - recipe.given:
            others.append(msgspec.structs.replace(recipe, given=optional))
        yield from (other for other in others if trial.runs_alone(other))
        yield from trial.other_sizes(recipe, 4)

    def _wanted_rounds(self) -> int:
        return _SUSPICIOUS_ROUNDS if self._is_suspicious() else _ROUNDS

    def _is_suspicious(self) -> bool:
        """Return whether an output's rows have a name of their own."""
        named = {dim for dims in self._trial.layout.dims.values() for dim in dims if isinstance(dim, str)}
        for tensor in self._trial.declared.outputs:
            axis = self._axes.get(tensor.name)
            dim = tensor.dims[axis] if tensor.dims and axis is not None and axis < len(tensor.dims) else None
            if isinstance(dim, str) and not is_nameless(dim) and dim not in named:
                return True
        return False

    def _find_axes(self) -> bool:
        """Find the axes of the outputs' rows; false when the model doesn't run more rows than one."""
        trial, recipe = self._trial, self._recipe
        several = False
        most = trial.layout.most_rows
        shared = self._source.shared(recipe, SURE_SEED)
        for count in _COUNTS:
            if (most and count > most) or (self._row_s > _SLOW_S and count == _COUNTS[-1]):
                continue
            rows = self._source.take([KINDS[0]] * count, recipe, 100 + count)
            if count == 1:
                # The first run of a shape takes longer.
                trial.run(rows, shared, recipe.sizes)
            started = time.monotonic()
            ran = trial.run(rows, shared, recipe.sizes)
            if count == 1:
                self._row_s = self._large_row_s = time.monotonic() - started
            several = several or (ran is not None and (count > 1 or most == 1))
        options = trial.row_axes()
        self._axes = {name: self._first_choice(name, axes) for name, axes in options.items()}
        for name, axes in options.items():
            if len(axes) > 1:
                self._axes[name] = self._best_axis(name, axes)
        return several

    def _first_choice(self, name: str, axes: Sequence[int]) -> int | None:
        dims = next(tensor.dims for tensor in self._trial.declared.outputs if tensor.name == name)
        symbol = self._trial.layout.symbol
        named = [axis for axis in axes if symbol and dims and axis < len(dims) and dims[axis] == symbol]
        return next(iter([*named, *axes]), None)

    def _best_axis(self, name: str, axes: Sequence[int]) -> int:
        """Return the axis along which rows beside each other have their answers."""
        first = self._axes[name]
        assert first is not None
        batch = self._batch(self._recipe, 50, [KINDS[0]] * 3)
        for axis in (first, *(each for each in axes if each != first)):
            if batch.compare({**dict.fromkeys(self._axes), name: axis}, [0, 1, 2], only=name) is None:
                return axis
        return first

    def _batch(self, recipe: Recipe, seed: int, kinds: Sequence[str]) -> CoBatchedRows:
        rows = self._source.take(kinds, recipe, seed)
        # What rows share may decide what becomes of them: it is another in each round, where the model takes it.
        batch = CoBatchedRows(self._trial, recipe, rows, self._source.shared(recipe, seed))
        if batch.running:
            return batch
        return CoBatchedRows(self._trial, recipe, rows, self._source.shared(recipe, SURE_SEED))

    def _round(self, recipe: Recipe, seed: int) -> Counterexample | None:
        """Compare fresh rows alone with the same rows in several batches."""
        kinds = self._kinds(seed)
        extra = NOT_FINITE if self._terms.allow_nan and not self._source.real else ()
        batch = self._batch(recipe, seed, [*kinds, *extra])
        finite = [index for index in batch.running if index < len(kinds)]
        if seed == 1 and len(finite) < 2:
            return Counterexample(finding="few")
        most = self._trial.layout.most_rows
        for group in _groups(finite, batch.running, seed, few=self._row_s > _SLOW_S, most=most):
            self._compared += len(group)
            # Where a row holds NaN, its own answer may depend on its place: ONNX Runtime's maxima do. Those of
            # its batch mates may not.
            started = time.monotonic()
            against = batch.compare(self._axes, group, judged=finite)
            if against is not None:
                return against
            if len(group) > self._largest:
                self._largest, self._large_row_s = len(group), (time.monotonic() - started) / len(group)
        return self._full_batch(batch, finite) if seed == 1 and not most else None

    def _full_batch(self, batch: CoBatchedRows, finite: Sequence[int]) -> Counterexample | None:
        """Compare rows in the largest batch that a worker makes, or in the largest that is quick enough."""
        count = min(self._terms.max_rows, int(_MANY_ROWS_S / max(self._large_row_s, 1e-6)))
        if count <= self._largest:
            return None
        return batch.compare(self._axes, [finite[index % len(finite)] for index in range(count)])

    def _kinds(self, seed: int) -> list[str]:
        """Return the kinds of a round's rows: of all sorts at first, then more ordinary ones."""
        count = next(rows for seconds, rows in _ROUND_ROWS if self._row_s <= seconds)
        if seed < 3:
            return list(KINDS[:count])
        return [*KINDS[: max(count // 2, 4) - 1], *(["normal"] * 5)]

    def _single_values(self) -> Counterexample | None:
        """Compare rows each of which holds one value only."""
        kinds = self._trial.maker.single_kinds()
        if not kinds:
            return None
        few = kinds[: len(kinds) if self._row_s <= _SLOW_S else _FEW_VALUES]
        batch = self._batch(self._recipe, 60, ["normal", "uniform", *few])
        most = self._trial.layout.most_rows or max(len(batch.running), 1)
        groups = (batch.running[start : start + most] for start in range(0, len(batch.running), most))
        return next((against for group in groups if (against := batch.compare(self._axes, group))), None)


def _groups(finite: list[int], running: list[int], seed: int, *, few: bool, most: int) -> Iterator[list[int]]:
    """Yield batches of rows by index: of a few, of all in other orders, of one repeated; NaN comes last.

    few: leave out those that repeat what others show. most: rows of one run; 0 is any number.
    """
    random = np.random.default_rng(seed)
    if not finite:
        return
    order = [int(index) for index in random.permutation(finite)]
    groups = [order, [*finite[::-1], finite[0], finite[0]]]
    groups += [[int(index) for index in random.choice(finite, size)] for size in ((2,) if few else (2, 3, 5, 8))]
    groups += [[finite[0], other] for other in finite[1:]] if seed == 1 and not few else []
    if len(running) > len(finite):
        others = [index for index in running if index not in finite]
        groups += [[*order, *others], *([other, *finite[:2]] for other in (others[:1] if few else others))]
    for group in groups:
        size = most or len(group)
        yield from (group[start : start + size] for start in range(0, len(group), size))
