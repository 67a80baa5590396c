"""ONNX Runtime's quantizers, run without their log, and with their errors translated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError, DataError, NotApplicable, ProductFailed
from headrace.compression.onnx_model.failure_messages import failed_node, failure, node_failure
from headrace.compression.silence import unlogged
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx


def run_quantizer(model: onnx.ModelProto, make: Callable[[onnx.ModelProto], Any], how: str) -> onnx.ModelProto:
    """Return the model that a quantizer makes of a copy.

    make: creates an ONNXQuantizer or QDQQuantizer, which may fail already. how: "per channel", or what else was tried.
    Raises CompressionError naming the library, the node it failed at, and what can be done.
    """
    try:
        with unlogged():
            quantizer = make(copy.deepcopy(model))
            quantizer.quantize_model()
    except Exception as exc:  # The quantizer raises ValueError, KeyError, TypeError, RuntimeError alike.
        raise CompressionError(failure("onnxruntime", f"quantize this model {how}", exc, model)) from exc
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def per_channel_or_tensor(
    model: onnx.ModelProto, per_channel: bool, convert: Callable[[bool, dict[str, Any]], ModelPackage]
) -> ModelPackage:
    """Return a product with a scale for each channel or, where that can't be made or can't run, for each tensor.

    convert: makes it; told which, and what to record of it. Raises the CompressionError of the last that was tried.
    """
    failed: dict[str, Any] = {}
    if per_channel:
        try:
            return convert(True, {})
        except (NotApplicable, DataError):
            raise
        except CompressionError as exc:
            note = "per tensor, since per channel failed"
            failed = {"per_channel": False, "per_channel_failed": exc.message, "notes": [note]}
    try:
        return convert(False, failed)
    except ProductFailed as exc:
        doing = f"run what its quantizer made {manner(False, bool(failed))}"
        cause = failed_node(exc, model)
        raise CompressionError(node_failure("onnxruntime", doing, cause, exc.message, model)) from exc


def manner(per_channel: bool, again: bool) -> str:
    """Describe how a model is quantized, for a message. again: whether per channel failed before."""
    return "per channel" if per_channel else "per channel or per tensor" if again else "per tensor"
