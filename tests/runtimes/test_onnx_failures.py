"""Which errors of ONNX Runtime may pass, and which will come again."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from headrace.runtimes.base import OutOfMemory
from headrace.runtimes.local.failures import passing_failure


def failure_of(shape: list[int], node: str = "ConstantOfShape") -> Exception:
    """The error of a real session that makes an array of this shape."""
    graph = helper.make_graph(
        [helper.make_node(node, ["shape"], ["y"])],
        "large",
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r".") as caught:
        session.run(None, {"shape": np.array(shape, np.int64)})
    return caught.value


def test_too_large_an_array_is_out_of_memory() -> None:
    assert isinstance(passing_failure(failure_of([1 << 46])), OutOfMemory)


def test_a_wrong_input_fails_for_good() -> None:
    assert passing_failure(failure_of([-3])) is None


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=gpu ; expr=cudaMalloc((void**)&p, size);", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", True),
        ("Available memory of 0 is smaller than requested bytes: Failed to allocate memory for requested buffer", True),
        ("CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0", False),
        ("CUDA failure 719: unspecified launch failure ; GPU=0", False),
    ],
)
def test_what_cuda_says_of_memory_and_lost_devices_may_pass(text: str, memory: bool) -> None:
    found = passing_failure(RuntimeError(text))
    assert found is not None
    assert isinstance(found, OutOfMemory) is memory


@pytest.mark.parametrize("text", ["Invalid Feed Input Name", "indices element out of data bounds, idx=99", ""])
def test_other_errors_fail_for_good(text: str) -> None:
    assert passing_failure(RuntimeError(text)) is None
