"""What of TensorRT can be tested without a GPU: the refusal, the options, and the int8 model it would be given."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from headrace.compression.conversion.tensorrt_engine import TensorRtEngine, int8_for_tensorrt, provider_options
from headrace.compression.data.dataset import Splits
from headrace.compression.errors import NotApplicable
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_without_a_gpu_it_is_refused(
    precision: Literal["fp16", "int8"], digits_package: ModelPackage, context: StepContext
) -> None:
    with pytest.raises(NotApplicable, match="needs an NVIDIA GPU"):
        TensorRtEngine(precision=precision).convert(digits_package, context)
    assert not context.folder.exists()


def test_an_engine_takes_one_row_to_as_many_as_the_package_batches(digits_package: ModelPackage) -> None:
    options = provider_options(digits_package, "fp16")
    most = digits_package.manifest.batching.max_rows
    assert options["trt_profile_min_shapes"] == "image:1x1x8x8"
    assert options["trt_profile_max_shapes"] == f"image:{most}x1x8x8"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "0")
    assert provider_options(digits_package, "int8")["trt_int8_enable"] == "1"


def test_int8_for_tensorrt_is_symmetric_and_has_float_biases(
    digits_package: ModelPackage, context: StepContext, splits: Splits
) -> None:
    model = int8_for_tensorrt(digits_package, onnx.load(digits_package.file), context)
    onnx.checker.check_model(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    conversions = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert conversions
    assert all(not weights[node.input[2]].any() for node in conversions)
    assert not any(array.dtype == np.int32 for array in weights.values())
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (labels,) = session.run(["label"], splits.test.inputs)
    assert (labels == splits.test.labels).mean() > 0.98
