"""Runs a quantizer of ONNX Runtime, quietly, and translates what it raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError
from headrace.compression.quiet import unlogged
from headrace.contracts.wording import first_line

if TYPE_CHECKING:
    import onnx


def run_quantizer(make: Callable[[], Any]) -> onnx.ModelProto:
    """Give the model that a quantizer makes. make: creates an ONNXQuantizer or QDQQuantizer, which may fail already.

    Raises CompressionError.
    """
    try:
        with unlogged():
            quantizer = make()
            quantizer.quantize_model()
    except Exception as exc:  # The quantizer raises ValueError, KeyError, TypeError, RuntimeError alike.
        raise CompressionError(f"ONNX Runtime can't quantize this model: {first_line(exc)}") from exc
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
