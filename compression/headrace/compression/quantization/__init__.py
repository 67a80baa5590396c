"""Steps that make numbers smaller: int8, fp16, and weights of 8 or 4 bits, over ONNX packages."""

from headrace.compression.quantization.half import HalfPrecision
from headrace.compression.quantization.int8.dynamic_int8 import DynamicInt8
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity, most_sensitive, sensitivity
from headrace.compression.quantization.int8.static_int8 import StaticInt8
from headrace.compression.quantization.weight_only import WeightOnly

__all__ = [
    "DynamicInt8",
    "HalfPrecision",
    "LayerSensitivity",
    "StaticInt8",
    "WeightOnly",
    "most_sensitive",
    "sensitivity",
]
