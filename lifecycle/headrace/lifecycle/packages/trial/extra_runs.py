"""Further runs of a layout once it is decided: sizes that need not agree, and the cost of running rows one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import msgspec

from headrace.contracts import Tensors
from headrace.lifecycle.packages.trial.dimensions import symbols_of
from headrace.lifecycle.packages.trial.runs import Trial
from headrace.lifecycle.packages.trial.samples import KINDS, SURE_SEED, Recipe, joined

#: Rows of the batch by which the cost of running alone is told.
_COST_ROWS: Final = 8

#: Sizes with which a model of one row at a time is tried for squares.
_SQUARES: Final = (2, 3, 16)


def unbound_inputs(trial: Trial) -> Iterator[str]:
    """Yield inputs of which the model takes other numbers of rows than of the rest, and not all outputs follow.

    Where the file gives the rows one name it says that they agree.
    """
    layout = trial.layout
    held = [name for name, axis in layout.axes.items() if axis is not None]
    if len(held) < 2 or layout.symbol or layout.row_sizes:
        return
    recipe = trial.find_recipe()
    if recipe is None:
        return
    rows = [trial.maker.row("normal", recipe, seed) for seed in (1, 2, 3)]
    shared = trial.maker.shared(recipe, SURE_SEED)
    two, three = (joined(rows[:count], layout.axes, shared) for count in (2, 3))
    held = [name for name in held if name in three]
    followed = trial.row_axes()
    for name in held:
        outputs = trial.try_run({**two, name: three[name]})
        if outputs is None:
            continue
        shapes = [(outputs[each].shape, axes) for each, axes in followed.items()]
        sizes = {shape[axis] for shape, axes in shapes for axis in axes[:1] if axis < len(shape)}
        if sizes != {3}:
            yield name


def free_symbols(trial: Trial, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield inputs and symbols whose sizes may differ from those of the same name elsewhere."""
    layout = trial.layout
    places = {name: layout.row_dims(name) for name in layout.axes}
    for symbol in symbols_of(places.values()):
        holders = [name for name, dims in places.items() if symbol in dims]
        for name in holders[1:]:
            if _may_differ(trial, recipe, name, symbol):
                yield name, symbol


def _may_differ(trial: Trial, recipe: Recipe, name: str, symbol: str) -> bool:
    layout = trial.layout
    changed = tuple(f"{symbol}[other]" if dim == symbol else dim for dim in layout.dims[name])
    other = trial.with_layout(msgspec.structs.replace(layout, dims={**layout.dims, name: changed}))
    sizes = {**recipe.sizes, f"{symbol}[other]": recipe.sizes[symbol] + 3}
    return other.runs_alone(msgspec.structs.replace(recipe, sizes=sizes))


def runs_square(trial: Trial, recipe: Recipe) -> bool:
    """Return whether several rows run if all that vary are as large as their number; files may not declare it."""
    for count in _SQUARES if recipe.sizes else ():
        square = msgspec.structs.replace(recipe, sizes=dict.fromkeys(recipe.sizes, count))
        rows = trial.maker.take([KINDS[0]] * count, square, SURE_SEED)
        if trial.run(rows, trial.maker.shared(square, SURE_SEED), square.sizes) is not None:
            return True
    return False


def run_alike(trial: Trial, recipe: Recipe) -> None:
    """Run rows that are all alike: an output of as many entries as there are different rows has no rows."""
    for kind in ("normal", "zeros", "minus_huge") if not trial.layout.row_sizes else ():
        row = trial.maker.row(kind, recipe, SURE_SEED)
        trial.run([row] * 3, trial.maker.shared(recipe, SURE_SEED), recipe.sizes)


def slowdown(trial: Trial, recipe: Recipe) -> float:
    """Measure how many times longer rows take one by one than in a batch; 0.0 when a batch doesn't run."""
    if trial.layout.row_sizes:
        return 0.0
    rows = [trial.maker.row("normal", recipe, seed) for seed in range(_COST_ROWS)]
    shared = trial.maker.shared(recipe, SURE_SEED)
    alone = _fastest(trial, joined(rows[:1], trial.layout.axes, shared))
    together = _fastest(trial, joined(rows, trial.layout.axes, shared))
    return _COST_ROWS * alone / together if together else 0.0


def _fastest(trial: Trial, inputs: Tensors) -> float:
    """Return the seconds of the fastest of a few runs; 0.0 when the model refuses them."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        if trial.try_run(inputs) is None:
            return 0.0
        times.append(time.perf_counter() - started)
    return min(times)
