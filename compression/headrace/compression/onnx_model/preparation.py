"""Makes a model ready for a quantizer: constants folded and shared, shapes inferred."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.blame import refusal
from headrace.compression.onnx_model.excluded import chosen_nodes
from headrace.compression.onnx_model.gemm import flatten_biases
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.onnx_model.source import name_nodes, read_model
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx


def prepare(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Fold constants and batch normalisation into weights, and infer the types and shapes of all tensors.

    folder: for ONNX Runtime to write in. Raises CompressionError when it can't load the model.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Basic optimisations only: they stay within standard ONNX and hold on every machine.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "prepared.onnx")
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        prepared = onnx.load(options.optimized_model_filepath)
    except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
        raise CompressionError(
            refusal(
                "onnxruntime",
                "fold the constants of this model",
                exc,
                model,
                "the original serves as it is; compress it for another runtime (--for), or with another onnxruntime",
            )
        ) from exc
    finally:
        Path(options.optimized_model_filepath).unlink(missing_ok=True)
    prepared = _with_shapes(prepared)
    flatten_biases(prepared)
    share_constants(prepared)
    name_nodes(prepared.graph)
    return prepared


def check_exclude(package: ModelPackage, exclude: Sequence[str]) -> None:
    """Raise CompressionError, before any recipe is tried, for what a package's model hasn't."""
    if not exclude or package.manifest.runtime != "onnxruntime":
        return
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        try:
            model = prepare(read_model(package, "--exclude"), Path(folder))
        except NotApplicable:
            # Each recipe says so of itself.
            return
    chosen_nodes(model, exclude)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer what ONNX can; where its inference fails, ONNX Runtime's own stands, which the file holds already."""
    import onnx

    # protobuf merges it; data propagation gives shapes that other tensors carry.
    for data_prop in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
        except Exception:  # noqa: BLE001, S112  (onnx raises RuntimeError and classes of its own C++ module)
            continue
    return model
