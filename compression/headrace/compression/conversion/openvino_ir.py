"""OpenVINO: ONNX packages as its own format, in float or in int8 by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from headrace.compression.conversion.verify import TOLERANCE, kept_if_proven, need, prove_same
from headrace.compression.data.row_layout import RowRuns, without_constants
from headrace.compression.errors import CompressionError
from headrace.compression.onnx_model.excluded import chosen_nodes
from headrace.compression.onnx_model.failure_messages import versioned
from headrace.compression.onnx_model.source import consumers, nodes_of, read_model, refuse_quantized
from headrace.compression.onnx_model.verify import checked_rows, prove
from headrace.compression.quantization.int8.calibration import MINIMUM_ROWS
from headrace.compression.steps import Progress, StepContext, step_record
from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.formatting import first_line
from headrace.contracts.telemetry import untracked
from headrace.lifecycle.packages.registry import derive_package

if TYPE_CHECKING:
    import onnx
    import openvino as ov

EXTRA: Final = "openvino"

MODEL_FILE: Final = "model.xml"

#: How OpenVINO names operators that it hasn't, or can't convert as they are.
_OPERATORS: Final = ("No conversion rule found", "Conversion is failed")

#: Operators that only transformers and their kin have.
_TRANSFORMER: Final = frozenset(
    {"LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "Attention", "MultiHeadAttention"}
)


@dataclass(frozen=True)
class OpenVinoIR:
    """Convert to OpenVINO's format. weights: fp16 halves the file; OpenVINO still computes in FP32.

    tolerance: largest difference allowed, in units of 1 + the output's largest absolute value; models that are
    quantized already aren't held to it, since OpenVINO rounds them its own way.
    """

    weights: Literal["fp32", "fp16"] = "fp32"
    tolerance: float | None = None

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the package for OpenVINO.

        Raises NotApplicable for what isn't an ONNX package, CompressionError naming operators that OpenVINO hasn't, or
        when outputs differ.
        """
        source = read_model(package, "OpenVinoIR")
        converted = _read(source)
        folder = context.step_dir(self)
        with kept_if_proven(folder):
            files = _save(converted, folder, compress=self.weights == "fp16")
            product = derive_package(package, folder, files, runtime="openvino", step=step_record(self) | _versions())
            product = without_constants(product)
            if _is_quantized(source):
                prove(product, package, context)
            else:
                # fp16 has 11 bits, so its own error is 2⁻¹¹ a weight.
                tolerance = self.tolerance or (TOLERANCE if self.weights == "fp32" else 1e-2)
                prove_same(product, package, context, tolerance, "the OpenVINO model")
        return product


@dataclass(frozen=True)
class OpenVinoInt8:
    """Make weights and activations int8 by NNCF's post-training quantization; ranges come from calibration rows.

    preset: weights are symmetric; mixed leaves activations asymmetric, which is more accurate, performance makes them
    symmetric too, which is faster on some devices. transformer: spare the operators that transformers suffer from and
    smooth their outliers (SmoothQuant, Xiao et al. 2023); None finds out from the graph. bias_correction: shift biases
    to make up for the mean error that int8 brings. exclude: names of nodes or operators of the ONNX file left in float,
    or patterns of them.
    """

    preset: Literal["mixed", "performance"] = "mixed"
    transformer: bool | None = None
    bias_correction: bool = True
    exclude: tuple[str, ...] = ()

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the int8 package for OpenVINO.

        Raises DataError when there are fewer than 32 calibration rows, or wrong ones; NotApplicable and
        CompressionError as OpenVinoIR does.
        """
        source = read_model(package, "OpenVinoInt8")
        refuse_quantized(source, "OpenVinoInt8")
        rows = checked_rows(package, context, MINIMUM_ROWS)
        need("OpenVinoInt8", EXTRA, "nncf")
        transformer = _is_transformer(source) if self.transformer is None else self.transformer
        left = {node.name for node in source.graph.node} - chosen_nodes(source, self.exclude)
        quantized = self._quantize(_read(source), rows, (transformer, left), context.progress)
        folder = context.step_dir(self)
        facts = {"transformer": transformer, "calibration_rows": len(rows), **_versions("nncf")}
        with kept_if_proven(folder):
            files = _save(quantized, folder, compress=False)
            product = derive_package(package, folder, files, runtime="openvino", step=step_record(self) | facts)
            product = without_constants(product)
            prove(product, package, context)
        return product

    def _quantize(self, model: ov.Model, rows: RowRuns, how: tuple[bool, set[str]], progress: Progress) -> ov.Model:
        """Quantize. how: whether it is a transformer, and the nodes to leave in float."""
        transformer, left = how
        with untracked(), _quiet():
            import nncf

            presets = {"mixed": nncf.QuantizationPreset.MIXED, "performance": nncf.QuantizationPreset.PERFORMANCE}
            count = len(rows)
            # Row by row: NNCF's statistics take the first dimension for a batch of one.
            batches = [next(rows.take([position]).runs()) for position in range(count)]

            def shown(batch: tuple[int, Tensors]) -> Tensors:
                progress(batch[0], count, "calibration")
                return batch[1]

            try:
                return nncf.quantize(
                    model,
                    nncf.Dataset(list(enumerate(batches)), shown),
                    preset=presets[self.preset],
                    subset_size=count,
                    fast_bias_correction=True,
                    model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                    ignored_scope=nncf.IgnoredScope(names=_operations(model, left)) if left else None,
                    advanced_parameters=nncf.AdvancedQuantizationParameters(
                        disable_bias_correction=not self.bias_correction
                    ),
                )
            except Exception as exc:  # NNCF raises classes of its own, OpenVINO's RuntimeError and plain ones.
                raise CompressionError(
                    f"{versioned('nncf')} can't quantize this model, which is no fault of the model's: "
                    f"{type(exc).__name__}: {first_line(exc)}; serve it in float (--recipe openvino), "
                    "or quantize it for onnxruntime"
                ) from exc


def _read(source: onnx.ModelProto) -> ov.Model:
    """Read an ONNX model into OpenVINO. Raises CompressionError naming the operators it hasn't."""
    need("conversion for OpenVINO", EXTRA, "openvino")
    with untracked():
        import openvino as ov

    try:
        # Not ov.convert_model, which reports each conversion to its makers.
        return ov.Core().read_model(source.SerializeToString(), b"")
    except RuntimeError as exc:  # The one class that OpenVINO raises.
        raise CompressionError(
            f"{versioned('openvino')} can't read this model: {_cause(exc)}; serve it with onnxruntime, or export it "
            "without them"
        ) from exc


def _operations(model: ov.Model, nodes: set[str]) -> list[str]:
    """Name what OpenVINO made of nodes of ONNX: an operation of the same name, or one to which a bias is added then."""
    names = [operation.get_friendly_name() for operation in model.get_ordered_ops()]
    return [name for name in names if name in nodes or name.removesuffix("/WithoutBiases") in nodes]


def _save(model: ov.Model, folder: Path, *, compress: bool) -> list[Path]:
    import openvino as ov

    # Names that OpenVINO gives by itself count up over the whole process; a package's bytes shouldn't tell of that.
    for position, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{position}")
    file = folder / MODEL_FILE
    ov.save_model(model, file, compress_to_fp16=compress)
    return [file, file.with_suffix(".bin")]


def _cause(exc: RuntimeError) -> str:
    """Return the lines of the cause; those before them name places in OpenVINO's source."""
    lines = [line.strip(" -\t") for line in str(exc).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(_OPERATORS)]
    return told[0] if told else lines[-1] if lines else type(exc).__name__


def _is_quantized(model: onnx.ModelProto) -> bool:
    return any("Quantize" in node.op_type or node.op_type.endswith("Integer") for node in nodes_of(model.graph))


def _is_transformer(model: onnx.ModelProto) -> bool:
    """Whether a graph normalises layers or attends: softmax over scores that a MatMul then weighs values with."""
    if any(node.op_type in _TRANSFORMER for node in nodes_of(model.graph)):
        return True
    readers = consumers(model.graph)
    return any(
        reader.op_type == "MatMul"
        for node in model.graph.node
        if node.op_type == "Softmax"
        for reader in readers.get(node.output[0], [])
    )


def _versions(*others: str) -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {name: version(name) for name in ("openvino", *others)}}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log, its bars, and its remarks about its own dependencies off the terminal."""
    logger = logging.getLogger("nncf")
    was = logger.disabled
    logger.disabled = True
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was
