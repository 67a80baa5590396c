"""Decides the layout that a model is served with: tries the candidates in turn, and explains the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.contracts import OutputMismatch
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.datatypes import FLOATS
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.graph_facts import likely_cause, quantizes_together
from headrace.lifecycle.packages.trial.co_batched_rows import HIDDEN, STEERED, UNEQUAL
from headrace.lifecycle.packages.trial.dimensions import is_nameless
from headrace.lifecycle.packages.trial.extra_runs import free_symbols, run_alike, runs_square, slowdown, unbound_inputs
from headrace.lifecycle.packages.trial.given_sample import GivenRows, rows_of, scaled, sizes_of
from headrace.lifecycle.packages.trial.layouts import Layout, candidates
from headrace.lifecycle.packages.trial.proof import Budget, Proof, Prover
from headrace.lifecycle.packages.trial.runs import Trial
from headrace.lifecycle.packages.trial.samples import Recipe, Rows
from headrace.lifecycle.packages.trial.verdict import Question, Verdict
from headrace.runtimes.base import LoadedModel

#: Seconds for rounds beyond the needed ones, of all layouts together: `models add` shall take no more than three.
_BUDGET_S: Final = 1.5

#: No further layout is tried after this time.
_LAYOUTS_S: Final = 5.0


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
        self._error: Exception | None = None

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
            self._error = trial.error or self._error
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
        rows = rows_of(sample, layout)
        shared = {name: sample[name] for name, axis in layout.axes.items() if axis is None and name in sample}
        recipe = Recipe(sizes=sizes_of(sample, layout))
        if not rows or trial.run(rows[:1], shared, recipe.sizes) is None:
            return None
        return recipe, GivenRows([*rows, *scaled(rows[0])], shared)

    def _settled(self, proof: Proof, trial: Trial) -> Verdict:
        """Return the verdict of a proven layout, or of one of which a person said what it is."""
        if self._question.independent is False:
            return msgspec.structs.replace(self._dependent(proof, trial), outcome="given")
        unbound = set() if self._question.sample else set(unbound_inputs(trial))
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
            free=self._free_symbols(proof, trial),
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
        if any(dims.count(layout.symbol) > 1 for dims in layout.dims.values()) or (
            not self._question.sample and runs_square(self._trial(proof.layout), proof.recipes[0])
        ):
            # What varies with the rows is no part of one.
            return None
        if 1 not in (self._question.row_sizes or (1,)) or (tried := self._try(layout)) is None:
            return None
        single, trial = tried
        if single.against is not None or any(axis is None for axis in single.axes.values()):
            return None
        return self._settled(single, trial)

    def _dependent(self, proof: Proof, trial: Trial) -> Verdict:
        """Return the verdict of a model that runs each request alone and whole."""
        layout, seen = proof.layout, tuple(trial.seen)
        named = {dim for dims in layout.dims.values() for dim in dims}
        real = bool(self._question.sample)
        if not real:
            run_alike(trial, proof.recipes[0])
        held = trial.row_axes()
        axes = {name: axis if axis in held[name] else None for name, axis in proof.axes.items()}
        for tensor in self._declared.outputs:
            axis = axes.get(tensor.name)
            # As many boxes as images may be chance.
            dim = tensor.dims[axis] if axis is not None and tensor.dims else None
            if isinstance(dim, str) and not is_nameless(dim) and dim not in named:
                axes[tensor.name] = None
        if _is_frozen(layout) or (not self._question.rows_at and not real and any(unbound_inputs(trial))):
            layout = Layout(dims=layout.dims, axes=dict.fromkeys(layout.axes))
            axes = dict.fromkeys(axes)
        return Verdict(
            outcome="dependent",
            layout=msgspec.structs.replace(layout, row_sizes=()),
            axes=axes,
            independent=False,
            seen=seen,
            free=self._free_symbols(proof, trial),
            rows=proof.rows,
            slower=0.0 if real else slowdown(trial, proof.recipes[0]),
            why=self._reason(proof),
        )

    def _without_rows(self, layouts: Sequence[Layout], likely: Layout) -> Verdict:
        """Return the verdict of a model without rows; undecided when not even a whole request of ours runs."""
        for layout in layouts:
            trial = self._trial(layout)
            sample = self._question.sample
            recipe = Recipe(sizes=sizes_of(sample, layout)) if sample else trial.find_recipe()
            if recipe is None or (sample and trial.run([], sample, recipe.sizes) is None):
                self._error = trial.error or self._error
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
            why=first_line(self._error) if self._error else "",
            sample_helps=not isinstance(self._error, OutputMismatch),
        )

    def _free_symbols(self, proof: Proof, trial: Trial) -> tuple[tuple[str, str], ...]:
        if self._question.sample:
            return ()
        return tuple(free_symbols(trial, proof.recipes[0]))


def _is_frozen(layout: Layout) -> bool:
    return any(isinstance(layout.dims[name][axis], int) for name, axis in layout.axes.items() if axis is not None)
