"""Comparison of two models on this machine: time, memory and size, as a worker would run both.

A shared machine is never quiet, so the two run in turn, in short blocks, each in a fresh process: what disturbs
one disturbs the other, and the ratio of neighbouring blocks stands where their seconds don't. What a run takes is
told in `benchmarking.timing`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, TypedDict, Unpack

import msgspec

from headrace.compression.benchmarking.conditions import Conditions, conditions_now, runtime_version
from headrace.compression.benchmarking.handle import BenchmarkHandle, Setup
from headrace.compression.benchmarking.inputs import checked_sizes, rows_file
from headrace.compression.benchmarking.protocol import Block, Loaded
from headrace.compression.benchmarking.ratio import Ratio, ratio_of
from headrace.compression.benchmarking.timing import Timing, timing_of, undisturbed
from headrace.compression.errors import CompressionError
from headrace.compression.steps import Progress, no_progress
from headrace.contracts import ModelPackage, Tensors

#: How long a block should take: some runs of a small model, and short against the ups and downs of a shared machine.
BLOCK_S: Final = 0.04

#: Fewer pairs of blocks give no interval worth the name, so a slow model takes longer than it was given.
MIN_PAIRS: Final = 7


#: Two processes that run the same model differ by up to a percent, by where their memory happens to lie; no number of
#: blocks tells that from a gain.
SAME: Final = 1.02


class MeasureOptions(TypedDict, total=False):
    """Options of a measurement.

    threads: for each model (1). device: as of `headrace worker` (cpu). seconds: to spend on each row size (2), more
    if the models are slow. answer_s: a model that says nothing for so long is given up (300). progress: told after
    each row size.
    """

    threads: int
    device: str
    seconds: float
    answer_s: float
    progress: Progress


class RowFigures(msgspec.Struct, frozen=True):
    """Batches of `rows` rows. baseline, ratio: None if there was nothing to compare with."""

    rows: int
    candidate: Timing
    baseline: Timing | None = None
    ratio: Ratio | None = None


class ModelFigures(msgspec.Struct, frozen=True):
    """One model as it was measured.

    peak_bytes: the most memory its process held, above what the process held before the runtime was loaded.
    library_bytes: of that, the runtime's library. file_bytes: the model file and what lies beside it.
    """

    model: str
    version: str
    sha256: str
    runtime: str
    runtime_version: str
    file_bytes: int
    load_seconds: float
    peak_bytes: int
    library_bytes: int


class Measurement(msgspec.Struct, frozen=True):
    """A model and, perhaps, the one it is compared with, under the same conditions in the same minutes."""

    candidate: ModelFigures
    baseline: ModelFigures | None
    rows: tuple[RowFigures, ...]
    conditions: Conditions

    def at(self, rows: int) -> RowFigures:
        """Return the figures of one row size. Raises CompressionError when it was not measured."""
        for figures in self.rows:
            if figures.rows == rows:
                return figures
        known = ", ".join(str(figures.rows) for figures in self.rows)
        raise CompressionError(f"batches of {rows} rows were not measured; those of {known} were")


def faster(measurement: Measurement, at_rows: int) -> bool:
    """Whether the candidate is faster at this row size beyond doubt: the low end of its ratio is above SAME.

    Raises CompressionError when that was not measured.
    """
    ratio = measurement.at(at_rows).ratio
    if ratio is None:
        raise CompressionError("there is no baseline to be faster than; measure with one")
    return ratio.low > SAME


def measure(
    candidate: ModelPackage,
    baseline: ModelPackage | None = None,
    *,
    inputs: Tensors,
    row_sizes: Sequence[int] = (1, 8, 64),
    **options: Unpack[MeasureOptions],
) -> Measurement:
    """Measure a model, alone or against a baseline.

    inputs: real rows for both, repeated where a batch needs more.
    Raises CompressionError when one of them crashes, hangs or fails, DataError when the rows don't fit.
    """
    packages = [candidate] if baseline is None else [candidate, baseline]
    sizes = checked_sizes(row_sizes)
    setup = Setup(options.get("device", "cpu"), options.get("threads", 1), options.get("answer_s", 300.0))
    progress = options.get("progress", no_progress)
    conditions = conditions_now(setup.device, (setup.threads,))
    with ExitStack() as stack:
        file = stack.enter_context(rows_file(packages, inputs, max(sizes)))
        handles = [stack.enter_context(BenchmarkHandle(package, file, setup)) for package in packages]
        loaded = [handle.load() for handle in handles]
        blocks = []
        for done, rows in enumerate(sizes):
            progress(done, len(sizes), f"batches of {rows}")
            blocks.append(_in_turn(handles, rows, options.get("seconds", 2.0)))
        progress(len(sizes), len(sizes), "measured")
    # The last block of each model knows the most memory that it ever held.
    models = [
        _model_figures(package, facts, last)
        for package, facts, last in zip(packages, loaded, blocks[-1][-1], strict=True)
    ]
    return Measurement(
        candidate=models[0],
        baseline=models[1] if len(models) > 1 else None,
        rows=tuple(_row_figures(rows, pairs) for rows, pairs in zip(sizes, blocks, strict=True)),
        conditions=conditions,
    )


def _in_turn(handles: Sequence[BenchmarkHandle], rows: int, seconds: float) -> list[list[Block]]:
    """Run blocks of all handles in turn for about `seconds`; return the turns, each with a block of every handle."""
    for handle in handles:
        handle.run(rows, 0.0)
    block_s = min(BLOCK_S, seconds / (2 * MIN_PAIRS))
    turns: list[list[Block]] = []
    until = time.monotonic() + seconds
    for number in itertools.count():
        if number >= MIN_PAIRS and time.monotonic() >= until:
            break
        # Who goes first changes, so that a machine that slows down or speeds up favours nobody.
        order = handles if number % 2 == 0 else handles[::-1]
        turn = {handle: handle.run(rows, block_s) for handle in order}
        turns.append([turn[handle] for handle in handles])
    return turns


def _row_figures(rows: int, turns: Sequence[Sequence[Block]]) -> RowFigures:
    candidate, *others = zip(*turns, strict=True)
    if not others:
        return RowFigures(rows, timing_of(rows, candidate))
    (baseline,) = others
    ratio = ratio_of(baseline=undisturbed(baseline), candidate=undisturbed(candidate))
    return RowFigures(rows, timing_of(rows, candidate), timing_of(rows, baseline), ratio)


def _model_figures(package: ModelPackage, loaded: Loaded, last: Block) -> ModelFigures:
    manifest = package.manifest
    return ModelFigures(
        model=package.name,
        version=package.version,
        sha256=manifest.sha256,
        runtime=manifest.runtime,
        runtime_version=runtime_version(manifest.runtime),
        file_bytes=package.size_bytes,
        load_seconds=loaded.load_seconds,
        peak_bytes=max(last.high_bytes - loaded.idle_bytes, 0),
        library_bytes=loaded.library_bytes,
    )
