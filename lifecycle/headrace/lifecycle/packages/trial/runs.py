"""Runs of a model on trial rows under one layout: what goes in, what came out, and where outputs hold their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import Tensors
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.graph_facts import Graph
from headrace.lifecycle.packages.trial.dimensions import elements, size_of, symbols_of
from headrace.lifecycle.packages.trial.layouts import Layout
from headrace.lifecycle.packages.trial.samples import BYTE, RANGES, SURE_SEED, Recipe, RowMaker, joined
from headrace.runtimes.base import LoadedModel

#: Sizes tried for dimensions that vary: a short sequence, images after several poolings, samples of sound. None is a
#: usual number of rows.
SIZES: Final = (16, 64, 224, 320, 640, 1024, 4096, 16000, 4, 1)

#: Most numbers of one input of one row: 16 MiB as FP32.
_MOST_NUMBERS: Final = 4_000_000


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes of one run. rows: that ran, those of padding too. sizes: of the symbols."""

    rows: int
    sizes: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


class Trial:
    """One layout of a model under trial."""

    def __init__(self, declared: DeclaredModel, layout: Layout, model: LoadedModel, graph: Graph) -> None:
        """declared: without constants. model: takes tensors of any shape that its file takes. graph: facts of it."""
        self.declared: Final = declared
        self.layout: Final = layout
        self.maker: Final = RowMaker(declared.inputs, layout, graph)
        self.seen: Final[list[Seen]] = []
        self.error: Exception | None = None
        self._model = model
        self._graph = graph

    def with_layout(self, layout: Layout) -> Trial:
        """Return a trial of the same model under another layout."""
        return Trial(self.declared, layout, self._model, self._graph)

    def run(self, rows: Sequence[Tensors], shared: Tensors, sizes: Mapping[str, int]) -> Tensors | None:
        """Run rows together; None when the model refuses them.

        With fixed numbers of rows the last row is repeated up to the next, as in serving.
        """
        padded = max(self.layout.runs_as(max(len(rows), 1)), 1)
        batch = [*rows, *[rows[-1]] * (padded - len(rows))] if rows else []
        inputs = joined(batch, self.layout.axes, shared) if batch else dict(shared)
        outputs = self.try_run(inputs)
        if outputs is not None:
            shapes = ({name: array.shape for name, array in tensors.items()} for tensors in (inputs, outputs))
            self.seen.append(Seen(rows=padded, sizes=dict(sizes), inputs=next(shapes), outputs=next(shapes)))
        return outputs

    def try_run(self, inputs: Tensors) -> Tensors | None:
        """Run whole inputs; None when the model refuses them, and then `error` is its reason."""
        try:
            return self._model.infer(inputs)
        except Exception as exc:  # noqa: BLE001  (runtimes raise what they like; a refusal is a result here)
            self.error = exc
            return None

    def find_recipe(self) -> Recipe | None:
        """Return sizes and values with which one row runs; None when none of those tried does."""
        for recipe in self._recipes():
            if self.runs_alone(recipe):
                return self._with_ranges(recipe)
        return None

    def runs_alone(self, recipe: Recipe, kind: str = "normal") -> bool:
        """Return whether one row runs."""
        rows = [self.maker.row(kind, recipe, SURE_SEED)] if self.layout.has_rows else []
        return self.run(rows, self.maker.shared(recipe, SURE_SEED), recipe.sizes) is not None

    def other_sizes(self, recipe: Recipe, most: int) -> Iterator[Recipe]:
        """Yield recipes with sizes of their own for each symbol, so that no two are taken for one; at most `most`."""
        changed = [
            {symbol: change(size, place) for place, (symbol, size) in enumerate(recipe.sizes.items())}
            for change in _CHANGES
        ]
        special = [dict.fromkeys(recipe.sizes, length) for length in self.maker.lengths()]
        for choices, limit in ((changed, most), (special, len(special))):
            found = 0
            for sizes in choices:
                other = msgspec.structs.replace(recipe, sizes=sizes)
                if found < limit and sizes != recipe.sizes and self._fits(sizes) and self.runs_alone(other):
                    found += 1
                    yield other

    def row_axes(self) -> dict[str, list[int]]:
        """Return, for each output, the dimensions that had as many entries as rows in every run."""
        found: dict[str, list[int]] = {}
        for tensor in self.declared.outputs:
            shapes = [(seen.rows, seen.outputs[tensor.name]) for seen in self.seen if tensor.name in seen.outputs]
            ranks = {len(shape) for _, shape in shapes}
            # A sequence has no rows: it is as long as the model makes it.
            axes = range(ranks.pop()) if len(ranks) == 1 and not tensor.sequence else range(0)
            found[tensor.name] = [axis for axis in axes if all(shape[axis] == rows for rows, shape in shapes)]
        return found

    def _recipes(self) -> Iterator[Recipe]:
        symbols = symbols_of(self.layout.row_dims(name) for name in self.layout.axes)
        for number in range(5 if self._has_parameters() else 1):
            for size in SIZES if symbols else (1,):
                sizes = dict.fromkeys(symbols, size)
                for ranges in self._ranges() if self._fits(sizes) else ():
                    yield Recipe(sizes=sizes, parameters=number, ranges=ranges)
        if self._all_optional():
            yield Recipe(sizes=dict.fromkeys(symbols, SIZES[0]), given=frozenset(self.layout.axes))

    def _ranges(self) -> list[dict[str, int]]:
        """Return ends of the ranges to begin with: all values of 8 bits, flags, nothing but ones."""
        whole, short = self.maker.whole_inputs(), self.maker.byte_inputs()
        ranges = [dict.fromkeys(short, BYTE), *([dict.fromkeys(whole, 2), dict.fromkeys(whole, 1)] if whole else [])]
        return ranges if short or not whole else ranges[1:]

    def _all_optional(self) -> bool:
        return all(tensor.optional for tensor in self.declared.inputs)

    def _has_parameters(self) -> bool:
        return any(axis is None for axis in self.layout.axes.values())

    def _fits(self, sizes: Mapping[str, int]) -> bool:
        shapes = (self.layout.row_dims(name) for name in self.layout.axes)
        return all(elements(size_of(dim, sizes) or 1 for dim in dims) <= _MOST_NUMBERS for dims in shapes)

    def _with_ranges(self, recipe: Recipe) -> Recipe:
        """Widen the range of each input of whole numbers as far as the model takes it."""
        ranges = dict(recipe.ranges)
        # Compiled code looks up what lies past the end of a table, or crashes there.
        if self.declared.runtime not in {"onnxruntime", "torch"}:
            return recipe
        for name in self.maker.whole_inputs():
            for upper in RANGES if ranges.get(name, 2) < BYTE else ():
                wider = msgspec.structs.replace(recipe, ranges={**ranges, name: upper})
                before = len(self.seen)
                if not self.runs_alone(wider, "huge") or not self.runs_alone(wider):
                    break
                ranges[name] = upper
                # A number that decides the size of an output must not grow: the next would take all memory.
                if len({tuple(seen.outputs.items()) for seen in self.seen[max(before - 1, 0) :]}) > 1:
                    break
        return msgspec.structs.replace(recipe, ranges=ranges)


#: How sizes that run become others that may: each symbol its own; few, since short rows show what long ones hide; one;
#: four times and twice as much, half as much again, a bit more.
_CHANGES: Final[tuple[Callable[[int, int], int], ...]] = (
    lambda size, place: size + 4 * (place + 1),
    lambda _, place: 2 + place,
    lambda _size, _place: 1,
    lambda size, _: 4 * size,
    lambda size, _: 2 * size,
    lambda size, _: size + max(size // 2, 1),
    lambda size, place: size + 1 + place,
)


def entry(value: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return the part of an output that belongs to one row; the axis stays, with one entry."""
    picked: NDArray[Any] = np.take(value, [index], axis=axis)
    return picked
