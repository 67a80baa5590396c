"""The recipes that have names: blocks joined by `+`, such as `prune-channels-50+int8-static`.

Steps import heavy libraries, so that a block makes its own only when asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import with_exclude
from headrace.compression.steps import ExportStep, NetworkStep, PackageStep, Recipe, Step

Runtime: TypeAlias = Literal["onnxruntime", "openvino", "litert", "torch", "tensorrt", "tvm"]

RUNTIMES: Final[tuple[Runtime, ...]] = ("onnxruntime", "openvino", "litert", "torch", "tensorrt", "tvm")


@dataclass(frozen=True)
class Block:
    """A part of a recipe.

    runtime: on which its product runs; "" leaves it to the rest of the recipe. of: its input. needs: other
    requirements.
    """

    summary: str
    steps: Callable[[], Sequence[Step]]
    of: Literal["network", "package"]
    runtime: Runtime | Literal[""] = ""
    needs: str = ""


def _graph() -> Sequence[Step]:
    from headrace.compression.quantization.graph_optimization import OptimisedGraph

    return [OptimisedGraph()]


def _static_int8(
    method: Literal["minmax", "entropy", "percentile"] = "minmax", sensitive_share: float = 0.0
) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.quantization.int8.static_int8 import StaticInt8

        return [StaticInt8(method=method, sensitive_share=sensitive_share)]

    return steps


def _dynamic_int8(sensitive_share: float = 0.0, tables: bool = False) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.quantization.int8.dynamic_int8 import DynamicInt8

        operators = ("MatMul", "Gemm", "Gather") if tables else ("MatMul", "Gemm")
        return [DynamicInt8(operators=operators, sensitive_share=sensitive_share)]

    return steps


def _half() -> Sequence[Step]:
    from headrace.compression.quantization.half import HalfPrecision

    return [HalfPrecision()]


def _weight_only(bits: Literal[4, 8]) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.quantization.weight_only import WeightOnly

        return [WeightOnly(bits=bits)]

    return steps


def _prune_channels(ratio: float) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.pruning import PruneChannels

        return [PruneChannels(ratio=ratio)]

    return steps


def _prune_magnitude(sparsity: float) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.pruning import PruneMagnitude

        return [PruneMagnitude(sparsity=sparsity)]

    return steps


def _prune_2_4() -> Sequence[Step]:
    from headrace.compression.pruning import PruneNM

    return [PruneNM()]


def _pt2e(trained: bool) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.quantization.pt2e.quantize import Pt2eInt8

        return [Pt2eInt8(trained=trained)]

    return steps


def _openvino() -> Sequence[Step]:
    from headrace.compression.conversion.openvino_ir import OpenVinoIR

    return [OpenVinoIR()]


def _openvino_int8() -> Sequence[Step]:
    from headrace.compression.conversion.openvino_ir import OpenVinoInt8

    return [OpenVinoInt8()]


def _litert(precision: Literal["fp32", "int8-dynamic", "int8"]) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.conversion.litert import LiteRtExport

        return [LiteRtExport(precision=precision)]

    return steps


def _tvm() -> Sequence[Step]:
    from headrace.compression.conversion.tvm_library import TvmLibrary

    return [TvmLibrary()]


def _tensorrt(precision: Literal["fp16", "int8"]) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.conversion.tensorrt_engine import TensorRtEngine

        return [TensorRtEngine(precision=precision)]

    return steps


def _distill(student: str) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.distillation.distill import Distill

        return [Distill(student=student)]

    return steps


def _student(family: str) -> Callable[[], Sequence[Step]]:
    def steps() -> Sequence[Step]:
        from headrace.compression.distillation.family import DistillFamily

        return [DistillFamily(family=family)]

    return steps


#: Rows with labels, or a teacher's answers, are needed wherever weights are trained.
_ROWS: Final = "rows to calibrate with"
_TRAINING: Final = "rows to train with"

BLOCKS: Final[Mapping[str, Block]] = {
    "student-mobilenet-v3": Block("MobileNetV3-Large taught by the model", _student("mobilenet-v3"), "network"),
    "student-squeezenet": Block("SqueezeNet taught by the model", _student("squeezenet"), "network"),
    "prune-channels-30": Block("30 % of all channels removed", _prune_channels(0.3), "network", needs=_TRAINING),
    "prune-channels-50": Block("half of all channels removed", _prune_channels(0.5), "network", needs=_TRAINING),
    "prune-channels-70": Block("70 % of all channels removed", _prune_channels(0.7), "network", needs=_TRAINING),
    "prune-magnitude-80": Block(
        "80 % of all weights zero: a smaller compressed file, not faster",
        _prune_magnitude(0.8),
        "network",
        needs=_TRAINING,
    ),
    "prune-2-4": Block("two of four weights zero, for GPUs with sparse cores", _prune_2_4, "network", needs=_TRAINING),
    "pt2e-int8": Block("int8 by torchao's PT2E", _pt2e(False), "network", needs=_ROWS),
    "qat-int8": Block("int8 by torchao's PT2E, quantization-aware training", _pt2e(True), "network", needs=_TRAINING),
    "graph": Block("graph simplified and fused", _graph, "package", "onnxruntime"),
    "int8-static": Block("int8, ranges from calibration", _static_int8(), "package", "onnxruntime", _ROWS),
    "int8-static-percentile": Block(
        "int8, ranges from calibration without its outermost values",
        _static_int8("percentile"),
        "package",
        "onnxruntime",
        _ROWS,
    ),
    "int8-static-entropy": Block(
        "int8, ranges of least divergence", _static_int8("entropy"), "package", "onnxruntime", _ROWS
    ),
    "int8-static-sensitive": Block(
        "int8, ranges from calibration; the most sensitive fifth of layers in float",
        _static_int8("minmax", 0.2),
        "package",
        "onnxruntime",
        _ROWS,
    ),
    "int8-dynamic": Block("int8 MatMul and Gemm, ranges at run time", _dynamic_int8(), "package", "onnxruntime"),
    "int8-dynamic-tables": Block(
        "int8 MatMul, Gemm and embedding tables", _dynamic_int8(tables=True), "package", "onnxruntime"
    ),
    "int8-dynamic-sensitive": Block(
        "int8 MatMul and Gemm; the most sensitive fifth of layers in float",
        _dynamic_int8(0.2),
        "package",
        "onnxruntime",
        _ROWS,
    ),
    "int8-weights": Block("int8 weights, float arithmetic", _weight_only(8), "package", "onnxruntime"),
    "int4-weights": Block("int4 weights, float arithmetic", _weight_only(4), "package", "onnxruntime"),
    "fp16": Block("half precision, for GPUs", _half, "package", "onnxruntime"),
    "openvino": Block("OpenVINO IR", _openvino, "package", "openvino"),
    "openvino-int8": Block("OpenVINO IR, int8 by NNCF", _openvino_int8, "package", "openvino", _ROWS),
    "litert": Block("LiteRT", _litert("fp32"), "network", "litert"),
    "litert-int8-dynamic": Block("LiteRT, int8 weights", _litert("int8-dynamic"), "network", "litert"),
    "litert-int8": Block("LiteRT, int8 throughout", _litert("int8"), "network", "litert", _ROWS),
    "tvm": Block("TVM library (experimental, slow untuned)", _tvm, "package", "tvm"),
    "tensorrt-fp16": Block("TensorRT engine, half precision", _tensorrt("fp16"), "package", "tensorrt", "a GPU"),
    "tensorrt-int8": Block("TensorRT engine, int8", _tensorrt("int8"), "package", "tensorrt", "a GPU"),
}


#: The last block of a recipe that only changes the network, where an export alone doesn't lead to that runtime.
ENDINGS: Final[Mapping[Runtime, str]] = {
    "openvino": "openvino",
    "litert": "litert",
    "tvm": "tvm",
    "tensorrt": "tensorrt-fp16",
}

#: Blocks that quantize the whole model.
_WHOLE: Final = frozenset(
    {"pt2e-int8", "qat-int8", "litert-int8", "litert-int8-dynamic", "tensorrt-fp16", "tensorrt-int8"}
)

#: The prefix of a reference `module:factory` to the user's own student.
_DISTILL: Final = "distill="


def parse_recipe(name: str, runtime: Runtime = "onnxruntime", exclude: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a name such as `prune-channels-50+int8-static`.

    `distill=module:factory` is a block too: it teaches that network, and runs the code that it names.

    runtime: where it ends when no block says. exclude: nodes and operators that its quantization leaves out.
    Raises CompressionError for a name nobody knows or an impossible order, NotApplicable when it can't leave any out.
    """
    blocks = [(part, _block(part)) for part in name.split("+")]
    steps = [step for _, block in blocks for step in block.steps()]
    kinds = [_kind(step) for step in steps]
    if kinds != sorted(kinds):
        raise CompressionError(
            f"recipe {name!r} changes a torch network after it was exported; write the blocks in the order prune, "
            "student or qat, then graph or int8, then a runtime"
        )
    if set(kinds) == {0} and runtime in ENDINGS:
        steps += BLOCKS[ENDINGS[runtime]].steps()
        kinds = [_kind(step) for step in steps]
    if 0 in kinds and 1 not in kinds:
        steps.insert(kinds.count(0), _export(runtime if kinds[-1] == 0 else "onnxruntime"))
    if exclude:
        _refuse_exclude(name)
    left_out = tuple(with_exclude(step, exclude) for step in steps)
    return Recipe(name, left_out, " → ".join(block.summary for _, block in blocks))


def _refuse_exclude(name: str) -> None:
    """Raise NotApplicable for a recipe that quantizes, but can't leave layers out."""
    whole = [part for part in name.split("+") if part in _WHOLE]
    if whole:
        raise NotApplicable(
            f"{' and '.join(whole)} can't leave layers out, which --exclude asks for; recipes that can are "
            "int8-static, int8-dynamic, int8-weights, int4-weights and fp16 for onnxruntime, openvino-int8 for openvino"
        )


def check_names(names: Sequence[str]) -> None:
    """Raise CompressionError for the first recipe that names a block nobody knows, before any is tried."""
    for name in names:
        for part in name.split("+"):
            _block(part)


def runtime_of(name: str, default: Runtime) -> Runtime:
    """Return the runtime on which the product of a recipe runs."""
    found = [block.runtime for block in (_block(part) for part in name.split("+")) if block.runtime]
    return found[-1] if found else default


def _block(name: str) -> Block:
    if name.startswith(_DISTILL):
        student = name.removeprefix(_DISTILL)
        return Block(f"{student} taught by the model", _distill(student), "network", needs=_TRAINING)
    try:
        return BLOCKS[name]
    except KeyError:
        close = difflib.get_close_matches(name, BLOCKS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise CompressionError(f"there is no recipe {name!r}; {hint}known are: {', '.join(BLOCKS)}") from None


def _kind(step: Step) -> int:
    """Return the position of a kind of step: network steps, then exports, then package steps."""
    return 0 if isinstance(step, NetworkStep) else 1 if isinstance(step, ExportStep) else 2


def _export(runtime: Runtime) -> ExportStep | PackageStep:
    from headrace.compression.export.onnx import OnnxExport
    from headrace.compression.export.torch_program import TorchExport

    return TorchExport() if runtime == "torch" else OnnxExport()
