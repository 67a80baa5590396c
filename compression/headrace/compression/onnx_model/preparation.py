"""Preparation of a model for a quantizer: constants folded and shared, shapes inferred."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import chosen_nodes
from headrace.compression.onnx_model.failure_messages import refusal
from headrace.compression.onnx_model.gemm import flatten_biases
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.onnx_model.source import name_nodes, read_model
from headrace.contracts import ModelPackage
from headrace.contracts.formatting import first_line
from headrace.runtimes.local.onnx_support.session import Level, SessionConfig, SessionFailed, open_session

if TYPE_CHECKING:
    import onnx


logger = logging.getLogger(__name__)


def prepare(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Fold constants and batch normalisation into weights, and infer the types and shapes of all tensors.

    folder: for ONNX Runtime to write in. Raises CompressionError when it can't load the model.
    """
    try:
        # Basic optimisations only: they stay within standard ONNX and hold on every machine.
        prepared = optimized(model, "basic", folder)
    except SessionFailed as exc:
        raise CompressionError(
            refusal(
                "onnxruntime",
                "fold the constants of this model",
                exc.cause,
                model,
                "the original serves as it is; compress it for another runtime (--for), or with another onnxruntime",
            )
        ) from exc.cause
    prepared = _with_shapes(prepared)
    flatten_biases(prepared)
    share_constants(prepared)
    name_nodes(prepared.graph)
    return prepared


def optimized(model: onnx.ModelProto, level: Level, folder: Path) -> onnx.ModelProto:
    """Return a model as ONNX Runtime optimizes it. folder: for a temporary file. Raises SessionFailed."""
    import onnx
    from google.protobuf.message import DecodeError

    file = folder / "optimized.onnx"
    try:
        open_session(model, SessionConfig(optimization=level, optimized_file=file))
        return onnx.load(file)
    except (DecodeError, OSError) as exc:
        raise SessionFailed(exc) from exc
    finally:
        file.unlink(missing_ok=True)


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
    """Infer the types and shapes that ONNX can; the model stays as it is where its inference fails.

    ONNX Runtime wrote its own shapes into the file already, so that a failure costs details of nodes it doesn't know.
    """
    from onnx.checker import ValidationError
    from onnx.shape_inference import InferenceError, infer_shapes

    # Data propagation gives shapes that other tensors carry, but fails on more models.
    for data_prop in (True, False):
        try:
            return infer_shapes(model, data_prop=data_prop)
        except (InferenceError, ValidationError, RuntimeError) as exc:
            logger.info("compression.shape_inference_failed data_propagation=%s error=%s", data_prop, first_line(exc))
    return model
