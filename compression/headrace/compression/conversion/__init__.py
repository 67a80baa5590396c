"""Steps that make models for other runtimes: OpenVINO, LiteRT, TVM and TensorRT."""

from headrace.compression.conversion.environment import converters_folder, set_up_litert
from headrace.compression.conversion.litert import LiteRtExport
from headrace.compression.conversion.openvino_ir import OpenVinoInt8, OpenVinoIR
from headrace.compression.conversion.tensorrt_engine import TensorRtEngine
from headrace.compression.conversion.tvm_library import TvmLibrary

__all__ = [
    "LiteRtExport",
    "OpenVinoIR",
    "OpenVinoInt8",
    "TensorRtEngine",
    "TvmLibrary",
    "converters_folder",
    "set_up_litert",
]
