"""Single steps as functions: each takes a model and returns a new one, made in a folder; the input stays unchanged.

For scripts and notebooks; `Search` runs many recipes and compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.errors import CompressionError
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.onnx_model.excluded import can_exclude, with_exclude
from headrace.compression.pruning import PruneChannels
from headrace.compression.quantization import StaticInt8
from headrace.compression.steps import ExportStep, NetworkStep, PackageStep, Progress, StepContext, no_progress
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


class StepOptions(TypedDict, total=False):
    """Options of every step.

    seed: of all that is random (0). threads: for running and training (1). progress: called as it goes on.
    """

    seed: int
    threads: int
    progress: Progress


def quantize(
    model: ModelPackage,
    step: PackageStep | None = None,
    *,
    calibration: Dataset,
    folder: Path,
    exclude: Sequence[str] = (),
    **options: Unpack[StepOptions],
) -> ModelPackage:
    """Return a quantized package.

    step: such as `StaticInt8` (the default), `DynamicInt8`, `WeightOnly`, `HalfPrecision`, `OptimisedGraph`,
    `OpenVinoInt8`. calibration: real rows, which set the ranges of int8. folder: for what is made. exclude: names of
    nodes or operators that are left as they are, or patterns such as `/decoder/*`, beside those of the step.
    Raises NotApplicable, DataError and MissingLibrary as the step says; CompressionError when it leaves nothing out.
    """
    chosen = step or StaticInt8()
    if exclude and not can_exclude(chosen):
        raise CompressionError(f"{type(chosen).__name__} works on the whole graph and can't leave nodes out")
    return with_exclude(chosen, exclude).convert(model, _context(folder, calibration, options))


def prune(
    network: Network,
    step: NetworkStep | None = None,
    *,
    rows: Dataset,
    folder: Path,
    **options: Unpack[StepOptions],
) -> Network:
    """Return a pruned network, fine-tuned on the rows with the original as its teacher.

    step: such as `PruneChannels(ratio=0.5)` (the default), `PruneMagnitude`, `PruneNM`. rows: to train with, labelled
    or not. folder: for what is made, checkpoints among it. Raises as the step says.
    """
    return (step or PruneChannels(ratio=0.5)).change(network, _context(folder, rows, options))


def export(
    network: Network,
    step: ExportStep | None = None,
    *,
    rows: Dataset,
    folder: Path,
    **options: Unpack[StepOptions],
) -> ModelPackage:
    """Return a package of a network, compared with it on random rows and on these.

    step: `OnnxExport` (the default) or `TorchExport`. Raises CompressionError when the two differ.
    """
    return (step or OnnxExport()).export(network, _context(folder, rows, options))


def _context(folder: Path, rows: Dataset, options: StepOptions) -> StepContext:
    return StepContext(
        folder,
        Splits(train=rows, calibration=rows, selection=rows, test=rows),
        seed=options.get("seed", 0),
        threads=options.get("threads", 1),
        progress=options.get("progress", no_progress),
    )
