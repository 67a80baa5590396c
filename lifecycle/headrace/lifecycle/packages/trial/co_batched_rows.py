"""Co-batched rows: their answers compared with those of each row alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from headrace.contracts import Tensors
from headrace.lifecycle.packages.trial.comparison import difference, tolerance, usual_scale
from headrace.lifecycle.packages.trial.runs import Trial, entry
from headrace.lifecycle.packages.trial.samples import Recipe, nudged

#: Roundings tried before a difference counts as one.
_NUDGES: Final = 6

#: What shows more than a difference in one output.
_WITHOUT_OUTPUT: Final = {
    "refused": "rows that run alone are refused together",
    "hidden": "scores behind its labels are quantized together",
    "steered": "the values of an input decide the shapes of outputs",
    "unequal": "inputs may have different numbers of rows",
    "few": "too few of the trial's rows run to tell",
    "no output": "no output has an entry for each row",
}


class Counterexample(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that rows are not independent.

    finding: beside which batch mates the answer changed, or a key of `_WITHOUT_OUTPUT`, or "again". output: the one
    that differs. by: how much it changes; infinity where it has another shape.
    """

    finding: str
    output: str = ""
    by: float = math.inf

    def describe(self) -> str:
        """Write it as part of a sentence."""
        if self.finding in _WITHOUT_OUTPUT:
            return _WITHOUT_OUTPUT[self.finding]
        if self.finding == "again":
            return f"output {self.output!r} of a row changes from run to run: it is random, or remembers earlier ones"
        if math.isinf(self.by):
            return f"output {self.output!r} isn't the same {self.finding}"
        return f"output {self.output!r} of a row changes by {self.by:.2g} {self.finding}"


#: Against a model whose labels didn't change, though the scores behind them must have.
HIDDEN: Final = Counterexample(finding="hidden")

#: Against a model one of whose inputs is a shape or an axis, and whose file doesn't say where its outputs' rows are.
STEERED: Final = Counterexample(finding="steered")


#: Against a model whose inputs needn't agree on the number of rows: no piece of a request is a row of all.
UNEQUAL: Final = Counterexample(finding="unequal")


class CoBatchedRows:
    """Rows with their answers alone, to be compared with their answers in a batch."""

    def __init__(self, trial: Trial, recipe: Recipe, rows: Sequence[Tensors], shared: Tensors) -> None:
        """Run each row alone; rows that the model refuses alone prove nothing."""
        self._trial = trial
        self._recipe = recipe
        self._rows = rows
        self._shared = shared
        self._noise: dict[int, dict[str, float]] = {}
        answers = [trial.run([row], shared, recipe.sizes) for row in rows]
        self._alone: dict[int, Tensors] = {i: answer for i, answer in enumerate(answers) if answer is not None}
        #: The rows that the model takes, by index.
        self.running: Final = list(self._alone)

    def changes_again(self) -> Counterexample | None:
        """Run the first row once more, after the others: random models and those with a memory answer otherwise."""
        for index in self.running[:1]:
            again = self._trial.run([self._rows[index]], self._shared, self._recipe.sizes) or {}
            for name, value in again.items():
                alone = self._alone[index][name]
                if (by := difference(alone, value)) > tolerance(alone, 0.0):
                    return Counterexample(output=name, by=by, finding="again")
        return None

    def compare(
        self, axes: dict[str, int | None], group: Sequence[int], *, only: str = "", judged: Sequence[int] = ()
    ) -> Counterexample | None:
        """Run rows together and return the first answer that isn't that of its row alone.

        only: the output to compare; all if empty. judged: the rows to compare; all if empty.
        """
        if any(index not in self._alone for index in group):
            return None
        rows = [self._rows[index] for index in group]
        answer = self._trial.run(rows, self._shared, self._recipe.sizes)
        if answer is None:
            return Counterexample(finding="refused")
        ran = self._trial.layout.runs_as(len(rows))
        for name in [only] if only else list(axes):
            against = self._compare_output(name, axes[name], group, answer[name], (ran, judged or group))
            if against is not None:
                return against
        return None

    def _compare_output(
        self, name: str, axis: int | None, group: Sequence[int], value: NDArray[Any], terms: tuple[int, Sequence[int]]
    ) -> Counterexample | None:
        ran, judged = terms
        finding = f"beside {len(group) - 1} others"
        if axis is None:
            first = next((index for index in group if index in judged), None)
            return None if first is None else self._judge(name, axis, first, value, finding)
        if value.ndim <= axis or value.shape[axis] != ran:
            return Counterexample(output=name, finding=finding)
        for place, index in enumerate(group):
            if index in judged:
                against = self._judge(name, axis, index, entry(value, axis, place), finding)
                if against is not None:
                    return against
        return None

    def _judge(
        self, name: str, axis: int | None, index: int, beside: NDArray[Any], finding: str
    ) -> Counterexample | None:
        alone = self._answer(self._alone[index], name, axis)
        apart = math.inf if alone is None else difference(alone, beside)
        if alone is None or apart == 0:
            return None if apart == 0 else Counterexample(output=name, finding=finding)
        usual = usual_scale(each for row in self._alone.values() if (each := self._answer(row, name, axis)) is not None)
        if apart <= tolerance(alone, usual):
            return None
        again = self._trial.run([self._rows[index]], self._shared, self._recipe.sizes)
        repeated = None if again is None else self._answer(again, name, axis)
        if repeated is None or difference(alone, repeated) > tolerance(alone, usual):
            return Counterexample(output=name, by=apart, finding="again")
        # An output without rows may not change at all.
        noise = 0.0 if axis is None else self._noise_of(index, name)
        if noise and apart <= tolerance(alone, usual, noise):
            return None
        return Counterexample(output=name, by=apart, finding=finding)

    @staticmethod
    def _answer(outputs: Tensors, name: str, axis: int | None) -> NDArray[Any] | None:
        value = outputs[name]
        if axis is None:
            return value
        return entry(value, axis, 0) if value.ndim > axis and value.shape[axis] else None

    def _noise_of(self, index: int, name: str) -> float:
        """Return by how much roundings of a row's inputs change its answer."""
        if index not in self._noise:
            noise = dict.fromkeys(self._alone[index], 0.0)
            for seed in range(_NUDGES):
                row = nudged(self._rows[index], seed)
                answer = None if row is None else self._trial.run([row], self._shared, self._recipe.sizes)
                for output in noise if answer else ():
                    assert answer is not None
                    noise[output] = max(noise[output], difference(self._alone[index][output], answer[output]))
            self._noise[index] = noise
        return self._noise[index][name]
