"""The check of a package by real batches: what comes back, how long it takes, and which number of rows pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, PackageError, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.tensors.codec import as_array
from headrace.contracts.tensors.datatypes import datatype_of, dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.lifecycle.packages.batch_sizes import paying_rows
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.trial.given_sample import check_sample, read_sample
from headrace.runtimes.base import Compute, OutOfMemory, TransientFailure, Unavailable, compute_of
from headrace.runtimes.loading import load_model

#: Runs of each size: at least so many, and for so long; the median counts.
_RUNS: Final = 5
_SIZE_S: Final = 0.3

#: Larger sizes are left out once a run takes longer than this.
_SLOW_RUN_S: Final = 10.0

#: Size in a made row of a dimension that varies, as in a worker's warm-up.
_VARYING_SIZE: Final = 1


class ReturnedOutput(msgspec.Struct, frozen=True):
    """An output of the first batch, as it came back."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Timing(msgspec.Struct, frozen=True):
    """Runs of one number of rows. seconds: the median of a run."""

    rows: int
    seconds: float
    rows_per_second: float


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a check.

    rows, seconds, outputs: of the first batch. version: of the server's model that answered, "" if there is none.
    pays: the `paying_rows` of the timings; 0 if batches weren't tried. stopped: why larger sizes were left out.
    """

    rows: int
    seconds: float
    outputs: tuple[ReturnedOutput, ...]
    version: str = ""
    timings: tuple[Timing, ...] = ()
    pays: int = 0
    stopped: str = ""


def check_package(
    package: ModelPackage,
    *,
    sample: Path | None = None,
    device: str = "cpu",
    threads: int = 0,
    watch: Callable[[Timing], None] = lambda _: None,
) -> Checked:
    """Run one real batch through a package, then batches of 1, 2, 4, … rows up to its `max_rows`.

    sample: rows of a file, else one row of zeros. watch: is told each timing. Raises PackageError when the first
    batch doesn't run, ConfigurationError when the runtime or credentials are missing.
    """
    package.verify()
    manifest = package.manifest
    inputs = _sampled(manifest.inputs, sample) if sample else example_row(manifest.inputs)
    model = load_model(package, device, threads)
    try:
        first = _first_batch(compute_of(model), inputs, manifest.inputs, real=bool(sample))
        if not manifest.batching.independent_rows:
            return first
        axes = RowAxes(manifest.inputs)
        timings, stopped = _timed(compute_of(model), axes, inputs, sizes_to_try(manifest.batching), watch)
    finally:
        model.close()
    pays = paying_rows([(timing.rows, timing.seconds) for timing in timings]) if timings else 0
    return msgspec.structs.replace(first, timings=tuple(timings), pays=pays, stopped=stopped)


def example_row(specs: Sequence[TensorSpec]) -> Tensors:
    """Return one row of zeros, or of empty texts, without optional inputs."""
    return {spec.name: _zeros(spec) for spec in specs if not spec.optional}


def _zeros(spec: TensorSpec) -> NDArray[Any]:
    sizes = spec.sample_shape or tuple(_VARYING_SIZE if size == -1 else size for size in spec.shape)
    shape = msgspec.structs.replace(spec, shape=sizes, symbols=(), sample_shape=()).whole_shape(1)
    return np.full(shape, b"" if spec.datatype == "BYTES" else 0, dtype=dtype_of(spec.datatype))


def sizes_to_try(batching: BatchingAdvice) -> list[int]:
    """Return the numbers of rows that are tried, in order."""
    if batching.row_sizes:
        return list(batching.row_sizes)
    powers = [1 << exponent for exponent in range(batching.max_rows.bit_length())]
    return [*(size for size in powers if size < batching.max_rows), batching.max_rows]


def _sampled(specs: Sequence[TensorSpec], sample: Path) -> Tensors:
    """Return the rows of a file, in the datatypes of the package."""
    tensors = tuple(
        DeclaredTensor(name=spec.name, datatype=spec.datatype, dims=None, optional=spec.optional) for spec in specs
    )
    declared = DeclaredModel(runtime="", file="", inputs=tensors, outputs=())
    rows = read_sample(sample, declared)
    check_sample(rows, declared)
    kinds = {spec.name: spec.datatype for spec in specs}
    return {name: as_array(array, kinds[name], name) for name, array in rows.items()}


def _first_batch(compute: Compute, inputs: Tensors, specs: Sequence[TensorSpec], *, real: bool) -> Checked:
    started = time.monotonic()
    try:
        computed = compute(inputs, None)
    except Unavailable as exc:
        raise PackageError(f"no answer: {first_line(exc)}") from None
    except PackageError:
        raise
    except Exception as exc:
        # Runtimes raise what they like; a batch that doesn't run is what a check is there to find.
        remedy = "" if real else "; if it only dislikes zeros, give real rows with --sample FILE"
        rows = "the sample" if real else "a row of zeros"
        raise PackageError(f"{rows} doesn't run: {first_line(exc)}{remedy}") from exc
    seconds = time.monotonic() - started
    outputs = (ReturnedOutput(name, datatype_of(array.dtype), array.shape) for name, array in computed.outputs.items())
    rows_run = RowAxes(specs).count(inputs)
    return Checked(rows=rows_run, seconds=seconds, outputs=tuple(outputs), version=computed.version)


def _timed(
    compute: Compute, axes: RowAxes, inputs: Tensors, sizes: Sequence[int], watch: Callable[[Timing], None]
) -> tuple[list[Timing], str]:
    """Return the timings of batches of these sizes, and why some were left out."""
    timings: list[Timing] = []
    for size in sizes:
        batch = repeated(axes, inputs, size)
        try:
            seconds = _median_run(compute, batch)
        except (TransientFailure, MemoryError) as exc:
            why = "it ran out of memory" if isinstance(exc, OutOfMemory | MemoryError) else first_line(exc)
            return timings, f"{size} rows and more were left out: {why}"
        except Exception as exc:  # noqa: BLE001 — a size that doesn't run is a finding, and smaller ones did.
            return timings, f"{size} rows and more were left out: {first_line(exc)}"
        timing = Timing(size, seconds, size / seconds)
        timings.append(timing)
        watch(timing)
        if seconds > _SLOW_RUN_S and size != sizes[-1]:
            return timings, f"more than {size} rows were left out, since these took {seconds:.0f} s"
    return timings, ""


def repeated(axes: RowAxes, inputs: Tensors, rows: int) -> Tensors:
    """Return a batch of the first rows of the inputs, over and over where these are too few."""
    have = axes.count(inputs)
    if rows <= have:
        return axes.cut(inputs, 0, rows)
    whole, rest = divmod(rows, have)
    pieces = [inputs] * whole + ([axes.cut(inputs, 0, rest)] if rest else [])
    return axes.join(pieces)


def _median_run(compute: Compute, batch: Tensors) -> float:
    """Return the seconds of a run in the middle of several."""
    # The first run of a size may compile or allocate what later ones have.
    compute(batch, None)
    times: list[float] = []
    while len(times) < _RUNS or sum(times) < _SIZE_S:
        started = time.perf_counter()
        compute(batch, None)
        times.append(time.perf_counter() - started)
        if sum(times) > _SLOW_RUN_S:
            break
    return float(np.median(times))
