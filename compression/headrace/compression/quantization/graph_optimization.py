"""Graph optimisation: fewer and faster operators that give the same answers."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from headrace.compression.errors import CompressionError
from headrace.compression.onnx_model.failure_messages import refusal, versioned
from headrace.compression.onnx_model.preparation import optimized
from headrace.compression.onnx_model.source import keep_layer_norms_apart, need, read_model
from headrace.compression.onnx_model.verify import finish, load, proof_batches, run
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.formatting import first_line
from headrace.lifecycle.packages.registry import derive_package
from headrace.runtimes.local.onnx_support.session import Level, SessionFailed

if TYPE_CHECKING:
    import onnx

#: Fusions change the order of float additions, no more: answers may differ by this much, relative and absolute.
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-4


@dataclass(frozen=True)
class OptimisedGraph:
    """Simplify the graph and save it as ONNX Runtime optimises it, so that workers load it faster.

    level: "basic" stays within standard ONNX; "extended" fuses into operators of ONNX Runtime, on any processor;
    "all" also lays data out for the kind of processor it runs on, and belongs on that kind alone.
    simplify: onnxslim goes over the graph first. keep_layer_norms: leaves additions and layer normalisations apart,
    whose fused kernel is slow on CPUs; say no for GPUs.
    """

    level: Literal["basic", "extended", "all"] = "all"
    simplify: bool = True
    keep_layer_norms: bool = True

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the optimised package; its answers were compared. Raises CompressionError when they differ."""
        model = read_model(package, "OptimisedGraph")
        facts: dict[str, Any] = {"operators_before": len(model.graph.node)}
        if not self.simplify:
            return self._optimised(model, package, context, facts)
        try:
            return self._optimised(_simplify(copy.deepcopy(model)), package, context, facts)
        except CompressionError as exc:
            # ONNX Runtime alone gains most of what there is to gain.
            facts |= {"simplify": False, "simplify_failed": exc.message}
        return self._optimised(model, package, context, facts)

    def _optimised(
        self, model: onnx.ModelProto, package: ModelPackage, context: StepContext, facts: dict[str, Any]
    ) -> ModelPackage:
        folder = context.step_dir(self)
        if self.keep_layer_norms:
            keep_layer_norms_apart(model)
        model = _optimise(model, self.level, folder)
        facts = {**step_record(self), **facts, "operators": len(model.graph.node)}
        product = finish(model, package, context, folder, facts)
        record = {
            **product.manifest.provenance["steps"][-1],
            "largest_difference": _largest_difference(package, product, context),
        }
        return derive_package(package, folder, [product.file], runtime="onnxruntime", step=record)


def _simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    need("onnxslim", "OptimisedGraph")
    import onnxslim

    try:
        # It is quiet only about what it does, not about what its own libraries will do.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slim: onnx.ModelProto = onnxslim.slim(model)
    except Exception as exc:  # onnxslim raises whatever numpy, onnx or its own code does.
        raise CompressionError(f"{versioned('onnxslim')} can't simplify this model: {first_line(exc)}") from exc
    return slim


def _optimise(model: onnx.ModelProto, level: Level, folder: Path) -> onnx.ModelProto:
    try:
        return optimized(model, level, folder)
    except SessionFailed as exc:
        raise CompressionError(
            refusal(
                "onnxruntime",
                "save this model as it optimises it",
                exc.cause,
                model,
                "it optimises the original as it loads it, so that nothing is lost without this recipe",
            )
        ) from exc.cause


def _largest_difference(source: ModelPackage, product: ModelPackage, context: StepContext) -> float:
    before, after = load(source, context.threads), load(product, context.threads)
    try:
        return max(
            largest_gap(run(before, batch, "the model"), run(after, batch, "the optimised model"))
            for batch in proof_batches(source, context, before)
        )
    finally:
        before.close()
        after.close()


def largest_gap(want: Tensors, have: Tensors) -> float:
    """Compare all outputs; gives the largest difference. Raises CompressionError when one is more than rounding."""
    largest = 0.0
    for name, array in want.items():
        if array.dtype.kind != "f":
            if not np.array_equal(array, have[name]):
                raise CompressionError(f"the optimised model gives another {name!r} than the model it was made of")
            continue
        finite = np.isfinite(array) & np.isfinite(have[name])
        gap = float(np.abs(array[finite] - have[name][finite]).max(initial=0))
        if not np.allclose(have[name], array, _RELATIVE, _ABSOLUTE, equal_nan=True):
            raise CompressionError(
                f"the optimised model differs from the model it was made of: {name!r} by {gap:.3g}; "
                "it stays as it is: this recipe is not for it"
            )
        largest = max(largest, gap)
    return largest
