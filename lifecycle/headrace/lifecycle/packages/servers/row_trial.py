"""A few small batches through a model server, which show the sizes that run and whether rows depend on each other.

The trial of model files makes hundreds of runs with extreme values; a server in use gets some ten with ordinary ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from headrace.contracts import PackageError, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.graph_facts import Graph
from headrace.lifecycle.packages.trial.comparison import difference, tolerance, usual_scale
from headrace.lifecycle.packages.trial.given_sample import rows_of, scaled, sizes_of
from headrace.lifecycle.packages.trial.layouts import Layout, candidates
from headrace.lifecycle.packages.trial.runs import Seen, Trial
from headrace.lifecycle.packages.trial.samples import Recipe, nudged
from headrace.runtimes.remote.base import BatchTooLarge, Connection, RemoteSignature, ServerAway
from headrace.runtimes.remote.endpoints.answer_check import checked

#: Rows that are run alone and together. They are ordinary: extreme ones may kill the workers of some servers.
_KINDS: Final = ("normal", "uniform", "normal", "times_10")

#: Seconds of the whole trial; a server that is slower proves nothing.
_TRIAL_S: Final = 30.0


class RowFindings(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a trial.

    verdict: "independent", "dependent", or "undecided" if no row ran. why: of the others. rows: that were compared.
    most_rows: that the server was found to take; 0 is no limit. seen: runs.
    """

    verdict: str
    why: str = ""
    rows: int = 0
    most_rows: int = 0
    seen: tuple[Seen, ...] = ()


def declared_by(signature: RemoteSignature, runtime: str) -> DeclaredModel:
    """Return a server's description of a model in the form of a file's."""
    rows = signature.row_sizes[0] if signature.row_sizes else "rows"
    return DeclaredModel(
        runtime=runtime,
        file="",
        inputs=tuple(_declared(spec, rows) for spec in signature.inputs),
        outputs=tuple(_declared(spec, rows) for spec in signature.outputs),
    )


def _declared(spec: TensorSpec, rows: int | str) -> DeclaredTensor:
    dims = (rows, *(None if size == -1 else size for size in spec.shape))
    return DeclaredTensor(name=spec.name, datatype=spec.datatype, dims=dims, optional=spec.optional)


class ServerModel:
    """A connection as a `LoadedModel`, for a bounded time and until it fails for another reason than a batch."""

    def __init__(
        self,
        connection: Connection,
        signature: RemoteSignature,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: in seconds."""
        self._connection = connection
        self._outputs = signature.outputs
        self._clock = clock
        self._ends_at = clock() + _TRIAL_S
        self._stopped: ServerAway | None = None

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch. Raises what `Connection.infer` does; after ServerAway, or too long a time, always that."""
        left_s = self._ends_at - self._clock()
        if self._stopped is not None or left_s <= 0:
            raise self._stopped or ServerAway(f"the trial took more than {_TRIAL_S:g} s")
        rows = next(iter(inputs.values())).shape[0]
        names = [spec.name for spec in self._outputs]
        try:
            answer = self._connection.infer(inputs, names, left_s)
        except ServerAway as exc:
            self._stopped = exc
            raise
        return checked(answer.outputs, self._outputs, rows, "allow")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def layout_of(declared: DeclaredModel, row_sizes: Sequence[int]) -> Layout:
    """Return the one layout that servers have: rows first in each input."""
    first = {tensor.name: 0 for tensor in declared.inputs}
    return candidates(declared, rows_at=first, row_sizes=row_sizes)[0]


def try_rows(declared: DeclaredModel, layout: Layout, model: ServerModel, sample: Tensors) -> RowFindings:
    """Run some rows alone and together. sample: real rows, or nothing.

    Raises PackageError when the sample doesn't run.
    """
    trial = Trial(declared, layout, model, Graph())
    recipe, rows = _prepared(trial, layout, sample)
    if recipe is None:
        why = first_line(trial.error) if trial.error else "no row runs"
        if sample:
            raise PackageError(f"the server can't run the sample: {why}; give inputs that it takes")
        return RowFindings(verdict="undecided", why=why)
    found = _compared(trial, recipe, rows)
    return msgspec.structs.replace(found, seen=tuple(trial.seen))


def _prepared(trial: Trial, layout: Layout, sample: Tensors) -> tuple[Recipe | None, list[Tensors]]:
    if not sample:
        recipe = trial.find_recipe()
        if recipe is None:
            return None, []
        return recipe, [trial.maker.row(kind, recipe, seed) for seed, kind in enumerate(_KINDS, 1)]
    recipe = Recipe(sizes=sizes_of(sample, layout))
    rows = rows_of(sample, layout)[: len(_KINDS)]
    if not rows or trial.run(rows[:1], {}, recipe.sizes) is None:
        return None, []
    return recipe, rows if len(rows) > 1 else [*rows, *scaled(rows[0])]


def _compared(trial: Trial, recipe: Recipe, rows: Sequence[Tensors]) -> RowFindings:
    """Compare the answers of rows alone with those that they have together."""
    pairs = [(row, trial.run([row], {}, recipe.sizes)) for row in rows]
    running = [(row, outputs) for row, outputs in pairs if outputs is not None]
    most = trial.layout.most_rows or len(running)
    running = running[:most]
    if len(running) < 2:
        return RowFindings(verdict="independent")
    batch = [row for row, _ in running]
    together = trial.run(batch, {}, recipe.sizes)
    turned = trial.run(batch[::-1], {}, recipe.sizes) if together is not None else None
    if together is None or turned is None:
        return _refused(trial.error)
    noise = [_noise(trial, row, outputs, recipe) for row, outputs in running]
    for spec in trial.declared.outputs:
        alone = [outputs[spec.name][:1] for _, outputs in running]
        usual = usual_scale(alone)
        for index, value in enumerate(alone):
            limit = tolerance(value, usual, noise[index].get(spec.name, 0.0))
            back = len(alone) - 1 - index
            beside = (together[spec.name][index : index + 1], turned[spec.name][back : back + 1])
            apart = max(difference(value, each) for each in beside)
            if apart > limit:
                why = f"{spec.name!r} of a row differs by {apart:.3g} from its value alone"
                return RowFindings(verdict="dependent", why=why, rows=len(running))
    return RowFindings(verdict="independent", rows=len(running))


def _refused(error: Exception | None) -> RowFindings:
    """Return the findings on a server that runs rows alone, but not together."""
    if isinstance(error, ServerAway):
        return RowFindings(verdict="undecided", why=first_line(error))
    most_rows = error.most_rows if isinstance(error, BatchTooLarge) else 1
    return RowFindings(verdict="independent", why=first_line(error) if error else "", most_rows=max(most_rows, 1))


def _noise(trial: Trial, row: Tensors, outputs: Tensors, recipe: Recipe) -> dict[str, float]:
    """Return by how much a rounding of a row's inputs changes each output."""
    changed = nudged(row, 1)
    other = None if changed is None else trial.run([changed], {}, recipe.sizes)
    if other is None:
        return {}
    found = {name: difference(array[:1], other[name][:1]) for name, array in outputs.items()}
    return {name: size for name, size in found.items() if math.isfinite(size)}


def sample_shape(name: str, shape: tuple[int, ...], seen: Sequence[Seen]) -> tuple[int, ...]:
    """Return the sizes of a row with which an input was seen to run; none if its shape is fixed."""
    whole = next((run.inputs[name] for run in seen if name in run.inputs), None)
    return () if -1 not in shape or whole is None or 0 in whole else whole[1:]
