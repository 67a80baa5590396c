"""Decides the layout that a model is served with, by trials of the candidates, and explains the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from headrace.contracts import OutputMismatch, PackageError, Tensors
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.datatypes import FLOATS
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.graph_facts import Graph, likely_cause, quantizes_together
from headrace.lifecycle.packages.trial.co_batched_rows import HIDDEN, STEERED, UNEQUAL
from headrace.lifecycle.packages.trial.dimensions import is_nameless, symbols_of, terms_of
from headrace.lifecycle.packages.trial.layouts import Layout, candidates
from headrace.lifecycle.packages.trial.proof import Budget, Proof, Prover, Terms
from headrace.lifecycle.packages.trial.runs import Seen, Trial
from headrace.lifecycle.packages.trial.samples import KINDS, SURE_SEED, GivenRows, Recipe, Rows, cut_rows, joined
from headrace.runtimes.base import LoadedModel

#: Seconds for rounds beyond the needed ones, of all layouts together: `models add` shall take no more than three.
_BUDGET_S: Final = 1.5

#: No further layout is tried after so many seconds.
_LAYOUTS_S: Final = 5.0

#: Rows of the batch by which the cost of running alone is told.
_COST_ROWS: Final = 8

#: A sample's rows are scaled by these to make extreme batch mates.
_SCALES: Final = (100.0, 0.01, 0.0)

#: Sizes with which a model of one row at a time is tried for squares.
_SQUARES: Final = (2, 3, 16)

#: Most rows of a sample that are used.
_SAMPLE_ROWS: Final = 12


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A person's statements about rows, and facts for the trial.

    independent: None leaves it to the proof. sample: input → real rows. terms: of its service. graph: facts of it.
    """

    rows_at: dict[str, int] = {}
    row_sizes: tuple[int, ...] = ()
    independent: bool | None = None
    terms: Terms = Terms()
    sample: dict[str, Any] = {}
    graph: Graph = Graph()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Decision on how a model is to be served.

    outcome: "independent", "dependent", "given", "no rows" or "undecided". axes: output → its rows. seen: runs.
    free: input and symbol that need not be equal. slower: by how much runs of single rows take longer than batches;
    0 is unknown. why: in words, for a person. steered: whether the values of an input decide sizes. sample_helps:
    whether real rows may tell what made ones didn't.
    """

    outcome: str
    layout: Layout
    axes: dict[str, int | None]
    independent: bool
    seen: tuple[Seen, ...] = ()
    free: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    slower: float = 0.0
    why: str = ""
    steered: bool = False
    sample_helps: bool = True


def decide(declared: DeclaredModel, model: LoadedModel, question: Question) -> Verdict:
    """Try the candidates in turn; the first whose rows are independent wins.

    declared: without constants. model: takes tensors of any shape. Never raises for what a trial shows.
    """
    return _Decision(declared, model, question).decide()


class _Decision:
    def __init__(self, declared: DeclaredModel, model: LoadedModel, question: Question) -> None:
        self._declared = declared
        self._model = model
        self._question = question
        self._budget = Budget(_BUDGET_S)
        self._started = time.monotonic()
        self._refusal: Exception | None = None

    def decide(self) -> Verdict:
        return msgspec.structs.replace(self._decide(), steered=self._is_steered())

    def _decide(self) -> Verdict:
        question = self._question
        layouts = candidates(
            self._declared,
            rows_at=question.rows_at,
            row_sizes=question.row_sizes,
            parameters=question.graph.parameters,
        )
        dependent: tuple[Proof, Trial] | None = None
        single: Proof | None = None
        for layout in layouts:
            if not layout.has_rows or (dependent and time.monotonic() - self._started > _LAYOUTS_S):
                continue
            tried = self._try(layout)
            if tried is None:
                continue
            proof, trial = tried
            if proof.against is None or (question.independent is False and proof.against.finding != "no output"):
                return self._settled(proof, trial)
            if proof.one_row:
                single = single or proof
            elif all(axis is None for axis in proof.axes.values()):
                # Rows that no output answers are none.
                continue
            else:
                dependent = dependent or tried
        if single is not None and dependent is None and (verdict := self._one_row(single)):
            return verdict
        if dependent is not None:
            return self._settled(*dependent) if question.independent else self._dependent(*dependent)
        return self._without_rows([layout for layout in layouts if not layout.has_rows], layouts[0])

    def _try(self, layout: Layout) -> tuple[Proof, Trial] | None:
        """Prove one layout; None when no row of it runs."""
        trial = self._trial(layout)
        prepared = self._prepared(trial)
        if prepared is None:
            self._refusal = trial.refusal or self._refusal
            return None
        recipe, rows = prepared
        prover = Prover(trial, recipe, rows, self._budget, self._question.terms)
        proof = prover.prove(axes_only=self._question.independent is False)
        if proof.against is None and layout.most_rows != 1 and self._hides_scores():
            proof = msgspec.structs.replace(proof, against=HIDDEN)
        if proof.against is None and self._is_steered() and not self._declares_rows(proof):
            proof = msgspec.structs.replace(proof, against=STEERED)
        return proof, trial

    def _trial(self, layout: Layout) -> Trial:
        return Trial(self._declared, layout, self._model, self._question.graph)

    def _is_steered(self) -> bool:
        """Return whether the values of an input decide sizes, so that a trial's outputs tell little of others."""
        return any(tensor.name in self._question.graph.parameters for tensor in self._declared.inputs)

    def _declares_rows(self, proof: Proof) -> bool:
        """Return whether the file itself says where each output has its rows."""
        symbol = proof.layout.symbol
        dims = {tensor.name: tensor.dims or () for tensor in self._declared.outputs}
        held = [(dims[name], axis) for name, axis in proof.axes.items() if axis is not None]
        return bool(symbol) and all(axis < len(each) and each[axis] == symbol for each, axis in held)

    def _hides_scores(self) -> bool:
        """Return whether scores are quantized together, and none of them can be seen."""
        floats = any(tensor.datatype in FLOATS for tensor in self._declared.outputs)
        return quantizes_together(self._question.graph.operators) and not floats

    def _prepared(self, trial: Trial) -> tuple[Recipe, Rows] | None:
        """Return how one row runs and where rows come from; None when none runs."""
        sample, layout = self._question.sample, trial.layout
        if not sample:
            recipe = trial.find_recipe()
            return None if recipe is None else (recipe, trial.maker)
        if any(sample[name].ndim != len(layout.dims[name]) for name in sample if name in layout.dims):
            return None
        rows = cut_rows(sample, layout.axes, layout.axes)[:_SAMPLE_ROWS]
        shared = {name: sample[name] for name, axis in layout.axes.items() if axis is None and name in sample}
        recipe = Recipe(sizes=_sizes_of(sample, layout))
        if not rows or trial.run(rows[:1], shared, recipe.sizes) is None:
            return None
        return recipe, GivenRows([*rows, *_scaled(rows[0])], shared)

    def _settled(self, proof: Proof, trial: Trial) -> Verdict:
        """Return the verdict of a proven layout, or of one of which a person said what it is."""
        if self._question.independent is False:
            return msgspec.structs.replace(self._dependent(proof, trial), outcome="given")
        unbound = set(self._unbound(trial))
        if unbound and not self._question.rows_at:
            axes = {name: None if name in unbound else axis for name, axis in proof.layout.axes.items()}
            tried = self._try(msgspec.structs.replace(proof.layout, axes=axes))
            if tried is not None and tried[0].against is None:
                proof, trial = tried
            elif not self._question.independent:
                return self._dependent(msgspec.structs.replace(proof, against=UNEQUAL), trial)
        return Verdict(
            outcome="independent" if proof.against is None else "given",
            layout=proof.layout,
            axes=proof.axes,
            independent=True,
            seen=tuple(trial.seen),
            free=tuple(self._free_symbols(proof, trial)),
            rows=proof.rows,
            why=self._reason(proof),
        )

    def _reason(self, proof: Proof) -> str:
        if proof.against is None:
            return ""
        cause = likely_cause(self._question.graph.operators)
        return f"{proof.against.describe()}{f'; its {cause}' if cause else ''}"

    def _one_row(self, proof: Proof) -> Verdict | None:
        """Return the verdict of a model that runs one row at a time, whatever its file declares."""
        layout = msgspec.structs.replace(proof.layout, row_sizes=(1,))
        if any(dims.count(layout.symbol) > 1 for dims in layout.dims.values()) or self._runs_square(proof):
            # What varies with the rows is no part of one.
            return None
        if 1 not in (self._question.row_sizes or (1,)) or (tried := self._try(layout)) is None:
            return None
        single, trial = tried
        if single.against is not None or any(axis is None for axis in single.axes.values()):
            return None
        return self._settled(single, trial)

    def _runs_square(self, proof: Proof) -> bool:
        """Return whether several rows run if all that vary are as large as their number; files may not declare it."""
        trial, recipe = self._trial(proof.layout), proof.recipes[0]
        for count in _SQUARES if recipe.sizes and not self._question.sample else ():
            square = msgspec.structs.replace(recipe, sizes=dict.fromkeys(recipe.sizes, count))
            rows = trial.maker.take([KINDS[0]] * count, square, SURE_SEED)
            if trial.run(rows, trial.maker.shared(square, SURE_SEED), square.sizes) is not None:
                return True
        return False

    def _dependent(self, proof: Proof, trial: Trial) -> Verdict:
        """Return the verdict of a model that runs each request alone and whole."""
        layout, seen = proof.layout, tuple(trial.seen)
        named = {dim for dims in layout.dims.values() for dim in dims}
        self._run_alike(proof, trial)
        held = trial.row_axes()
        axes = {name: axis if axis in held[name] else None for name, axis in proof.axes.items()}
        for tensor in self._declared.outputs:
            axis = axes.get(tensor.name)
            # As many boxes as images may be chance.
            dim = tensor.dims[axis] if axis is not None and tensor.dims else None
            if isinstance(dim, str) and not is_nameless(dim) and dim not in named:
                axes[tensor.name] = None
        if _is_frozen(layout) or (not self._question.rows_at and any(self._unbound(trial))):
            layout = Layout(dims=layout.dims, axes=dict.fromkeys(layout.axes))
            axes = dict.fromkeys(axes)
        return Verdict(
            outcome="dependent",
            layout=msgspec.structs.replace(layout, row_sizes=()),
            axes=axes,
            independent=False,
            seen=seen,
            free=tuple(self._free_symbols(proof, trial)),
            rows=proof.rows,
            slower=self._slower(proof, trial),
            why=self._reason(proof),
        )

    def _run_alike(self, proof: Proof, trial: Trial) -> None:
        """Run rows that are all alike: an output of as many entries as there are different rows has no rows."""
        recipe = proof.recipes[0]
        for kind in (
            ("normal", "zeros", "minus_huge") if not self._question.sample and not trial.layout.row_sizes else ()
        ):
            row = trial.maker.row(kind, recipe, SURE_SEED)
            trial.run([row] * 3, trial.maker.shared(recipe, SURE_SEED), recipe.sizes)

    def _without_rows(self, layouts: Sequence[Layout], likely: Layout) -> Verdict:
        """Return the verdict of a model without rows; undecided when not even a whole request of ours runs."""
        for layout in layouts:
            trial = self._trial(layout)
            sample = self._question.sample
            recipe = Recipe(sizes=_sizes_of(sample, layout)) if sample else trial.find_recipe()
            if recipe is None or (sample and trial.run([], sample, recipe.sizes) is None):
                self._refusal = trial.refusal or self._refusal
                continue
            for other in trial.other_sizes(recipe, 3) if not sample else ():
                trial.run([], trial.maker.shared(other, 2), other.sizes)
            return Verdict(
                outcome="no rows",
                layout=layout,
                axes={tensor.name: None for tensor in self._declared.outputs},
                independent=False,
                seen=tuple(trial.seen),
            )
        return Verdict(
            outcome="undecided",
            layout=msgspec.structs.replace(likely, row_sizes=()) if not _is_frozen(likely) else layouts[0],
            axes={tensor.name: None for tensor in self._declared.outputs},
            independent=False,
            why=first_line(self._refusal) if self._refusal else "",
            sample_helps=not isinstance(self._refusal, OutputMismatch),
        )

    def _unbound(self, trial: Trial) -> Iterator[str]:
        """Yield inputs of which the model takes other numbers of rows than of the rest, and not all outputs follow.

        Where the file gives the rows one name it says that they agree.
        """
        layout = trial.layout
        held = [name for name, axis in layout.axes.items() if axis is not None]
        if len(held) < 2 or layout.symbol or layout.row_sizes or self._question.sample:
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

    def _free_symbols(self, proof: Proof, trial: Trial) -> Iterator[tuple[str, str]]:
        """Yield inputs and symbols whose sizes may differ from those of the same name elsewhere."""
        layout, recipe = trial.layout, proof.recipes[0]
        if self._question.sample:
            return
        places = {name: layout.row_dims(name) for name in layout.axes}
        for symbol in symbols_of(places.values()):
            holders = [name for name, dims in places.items() if symbol in dims]
            for name in holders[1:]:
                if self._may_differ(trial, recipe, name, symbol):
                    yield name, symbol

    def _may_differ(self, trial: Trial, recipe: Recipe, name: str, symbol: str) -> bool:
        layout = trial.layout
        changed = tuple(f"{symbol}[other]" if dim == symbol else dim for dim in layout.dims[name])
        other = self._trial(msgspec.structs.replace(layout, dims={**layout.dims, name: changed}))
        sizes = {**recipe.sizes, f"{symbol}[other]": recipe.sizes[symbol] + 3}
        return other.runs_alone(msgspec.structs.replace(recipe, sizes=sizes))

    def _slower(self, proof: Proof, trial: Trial) -> float:
        """Measure how many times longer rows take one by one than in a batch; 0.0 when a batch doesn't run."""
        if self._question.sample or trial.layout.row_sizes:
            return 0.0
        recipe = proof.recipes[0]
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


def _is_frozen(layout: Layout) -> bool:
    return any(isinstance(layout.dims[name][axis], int) for name, axis in layout.axes.items() if axis is not None)


def _sizes_of(sample: Mapping[str, Any], layout: Layout) -> dict[str, int]:
    """Return the sizes of symbols that a sample's shapes tell."""
    sizes: dict[str, int] = {}
    for name in layout.axes:
        axis, shape = layout.axes[name], np.shape(sample.get(name, ()))
        inner = shape if axis is None else shape[:axis] + shape[axis + 1 :]
        for dim, size in zip(layout.row_dims(name), inner, strict=False):
            if isinstance(dim, str) and terms_of(dim) == [(1, dim)]:
                sizes.setdefault(dim, size)
    return sizes


def _scaled(row: Tensors) -> list[Tensors]:
    """Return a real row made extreme, if it has floats."""
    kinds = {name: array.dtype.kind in "fV" for name, array in row.items()}
    if not any(kinds.values()):
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        return [
            {name: (array * scale).astype(array.dtype) if kinds[name] else array for name, array in row.items()}
            for scale in _SCALES
        ]


def check_sample(sample: Mapping[str, Any], declared: DeclaredModel) -> None:
    """Refuse a sample that names other inputs than the model has. Raises PackageError."""
    names = [tensor.name for tensor in declared.inputs]
    missing = [tensor.name for tensor in declared.inputs if tensor.name not in sample and not tensor.optional]
    unknown = [name for name in sample if name not in names]
    if missing or unknown:
        raise PackageError(f"the sample holds {', '.join(sample) or 'nothing'}, but the model takes {', '.join(names)}")
