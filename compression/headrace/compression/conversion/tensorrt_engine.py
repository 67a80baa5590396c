"""TensorRT (untested: it needs an NVIDIA GPU): ONNX packages with an engine for the GPU of this machine inside.

The engine is built by ONNX Runtime's TensorRT provider, which writes an ONNX file of one node, `EPContext`, that holds
it; the runtime `onnxruntime` serves that file on `--device tensorrt` (docs/decisions/0006-tensorrt.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from headrace.compression.conversion.verify import kept_if_proven
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.export.parity import check_parity
from headrace.compression.onnx_model.source import (
    array_of,
    drop_unused_weights,
    nodes_of,
    read_model,
    weights_of,
)
from headrace.compression.onnx_model.verify import load, proof_batches, run
from headrace.compression.quantization.int8.static_int8 import StaticInt8
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ConfigurationError, ModelPackage
from headrace.contracts.formatting import first_line
from headrace.lifecycle.packages.registry import MODEL_FILE, derive_package
from headrace.runtimes.base import find_runtime
from headrace.runtimes.loading import load_model
from headrace.runtimes.local.onnx_support.session import SessionConfig, SessionFailed, open_session

if TYPE_CHECKING:
    import onnx

DEVICE: Final = "tensorrt"

_PROVIDER: Final = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class TensorRtEngine:
    """Build an engine for this machine's GPU; it runs on that kind of GPU and that version of TensorRT only.

    precision: fp16; int8 takes a model that is int8 already, or makes it so by StaticInt8 with signed symmetric
    activations, which is what TensorRT takes. tolerance: largest difference allowed with fp16, in units of 1 + the
    output's largest absolute value.
    """

    precision: Literal["fp16", "int8"] = "fp16"
    tolerance: float = 2e-2

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return a package that serves on `--device tensorrt`, for up to as many rows as it batches.

        Raises NotApplicable when there is no GPU, when it isn't an ONNX package, or when a dimension other than the
        rows varies; CompressionError when TensorRT can't take the whole model, or gives NaN or other shapes.
        """
        _need_gpu()
        model = read_model(package, "TensorRtEngine")
        if any(spec.varies for spec in package.manifest.inputs):
            raise NotApplicable("an input varies in a dimension other than the rows, and an engine has fixed sizes")
        if not package.manifest.signature.has_rows_first or package.manifest.constants:
            raise NotApplicable(
                "an engine has its rows first and takes all inputs from a request; use a recipe for onnxruntime"
            )
        if self.precision == "int8":
            model = int8_for_tensorrt(package, model, context)
        folder = context.step_dir(self)
        with kept_if_proven(folder):
            file = _build(model, package, self.precision, folder)
            product = derive_package(
                package, folder, [file], runtime="onnxruntime", step=step_record(self) | _versions()
            )
            _prove(product, package, context, self.tolerance if self.precision == "fp16" else None)
        return product


def int8_for_tensorrt(package: ModelPackage, model: onnx.ModelProto, context: StepContext) -> onnx.ModelProto:
    """Return the model in int8 as TensorRT takes it: symmetric, with float biases."""
    import onnx

    if not any(node.op_type == "QuantizeLinear" for node in nodes_of(model.graph)):
        small = StaticInt8(activations="int8", weight_bits=8).convert(package, context)
        model = onnx.load(small.file)
    _float_biases(model)
    return model


def _float_biases(model: onnx.ModelProto) -> None:
    """Turn int32 biases back into floats: TensorRT has no such numbers, and adds its own scale."""
    from onnx import numpy_helper

    weights = weights_of(model.graph)
    kept = []
    for node in model.graph.node:
        codes = weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or array_of(codes).dtype != np.int32:
            kept.append(node)
            continue
        bias = array_of(codes).astype(np.float32) * array_of(weights[node.input[1]])
        model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unused_weights(model.graph)


def _need_gpu() -> None:
    import onnxruntime as ort

    if _PROVIDER not in ort.get_available_providers():
        raise NotApplicable(
            "TensorRT needs an NVIDIA GPU and ONNX Runtime's build for it, and this one has only "
            f"{', '.join(ort.get_available_providers())}; install onnxruntime-gpu and tensorrt on a machine with a GPU"
        )
    try:
        find_runtime("onnxruntime", DEVICE, 1)
    except ConfigurationError as exc:
        raise NotApplicable(f"TensorRT needs an NVIDIA GPU; none was found: {exc}") from exc


def provider_options(package: ModelPackage, precision: str) -> Mapping[str, str]:
    """Return the provider's options: the precision, and batches of one row to as many as the package has."""

    def shapes(rows: int) -> str:
        sizes = {spec.name: "x".join(map(str, (rows, *spec.shape))) for spec in package.manifest.inputs}
        return ",".join(f"{name}:{size}" for name, size in sizes.items())

    most = package.manifest.batching.max_rows
    return {
        "trt_fp16_enable": "1",
        "trt_int8_enable": "1" if precision == "int8" else "0",
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(most),
        "trt_profile_max_shapes": shapes(most),
    }


def _build(model: onnx.ModelProto, package: ModelPackage, precision: str, folder: Path) -> Path:
    file = folder / MODEL_FILE
    entries = {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "1",
        "ep.context_file_path": str(file),
        # What TensorRT can't run must not fall to the CPU: an engine is the whole model or nothing.
        "session.disable_cpu_ep_fallback": "1",
    }
    providers = [(_PROVIDER, dict(provider_options(package, precision)))]
    try:
        open_session(model, SessionConfig(providers=providers, entries=entries, log_errors=True))
    except SessionFailed as exc:
        raise CompressionError(f"TensorRT can't build an engine of this model: {first_line(exc.cause)}") from exc.cause
    if not file.exists():
        raise CompressionError("TensorRT didn't take the whole model, so that there is no engine to keep")
    return file


def _prove(product: ModelPackage, source: ModelPackage, context: StepContext, tolerance: float | None) -> None:
    """Compare the engine with its source on the CPU. tolerance: None compares names and shapes only."""
    before = load(source, context.threads)
    try:
        after = load_model(product, DEVICE, context.threads)
        try:
            most = source.manifest.batching.max_rows
            for batch in proof_batches(source, context, before):
                rows = {name: array[:most] for name, array in batch.items()}
                want, have = run(before, rows, "the model"), run(after, rows, "the TensorRT engine")
                if tolerance is not None:
                    check_parity(want, have, tolerance, "the TensorRT engine")
                elif any(want[name].shape != have[name].shape for name in want):
                    raise CompressionError("the TensorRT engine gives outputs of other shapes than the model")
        finally:
            after.close()
    finally:
        before.close()


def _versions() -> dict[str, Any]:
    """Record what the engine is bound to."""
    found = {}
    for name in ("onnxruntime-gpu", "tensorrt"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"versions": found, "untested": "headrace's makers had no GPU to try this on"}
