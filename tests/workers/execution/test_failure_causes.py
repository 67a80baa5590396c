"""What callers read of failed runs: real errors of real runtimes, and nothing of those that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headrace.contracts import (
    HeadraceError,
    InferenceFailed,
    InputRefused,
    ModelOutOfMemory,
    OutputMismatch,
    RuntimeTrouble,
    SignatureMismatch,
    TensorSpec,
)
from headrace.runtimes.base import OutOfMemory, TransientFailure
from headrace.workers.models.failures import LONGEST, BrokenContract, cause_of, given_up

ROOT = Path(__file__).parents[3]

F = np.float32
ONE = {"x": np.ones((1, 5), F)}

Tensors = dict[str, np.ndarray[Any, Any]]
Way = Callable[[Path, Sequence[Any], Tensors, Tensors], Exception]

_KINDS = {np.dtype("f4"): TensorProto.FLOAT, np.dtype("i8"): TensorProto.INT64, np.dtype(object): TensorProto.STRING}


def write(folder: Path, nodes: Sequence[Any], inputs: Tensors, constants: Tensors) -> Path:
    """Write a model with named dimensions, which is right for other inputs than these."""
    letters = iter("abcdefgh")
    takes = [
        helper.make_tensor_value_info(name, _KINDS[array.dtype], [next(letters) for _ in array.shape])
        for name, array in inputs.items()
    ]
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "small", takes, [gives], weights)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def by_onnx_runtime(folder: Path, nodes: Sequence[Any], inputs: Tensors, constants: Tensors) -> Exception:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(write(folder, nodes, inputs, constants)), options)
    with pytest.raises(Exception, match=r".") as caught:
        session.run(None, inputs)
    return caught.value


def by_openvino(folder: Path, nodes: Sequence[Any], inputs: Tensors, constants: Tensors) -> Exception:
    import openvino as ov

    compiled = ov.Core().compile_model(write(folder, nodes, inputs, constants), "CPU")
    with pytest.raises(RuntimeError) as caught:
        compiled.create_infer_request().infer(inputs)
    return caught.value


node = helper.make_node

#: Nodes, inputs and constants of a graph.
Graph = tuple[list[onnx.NodeProto], Tensors, Tensors]

ADD: Graph
ADD = ([node("Add", ["p", "q"], ["y"], name="/encoder/Add_1")], {"p": np.ones((1, 3), F), "q": np.ones((1, 4), F)}, {})
RESHAPE = ([node("Reshape", ["x", "s"], ["y"], name="flat")], ONE, {"s": np.array([2, 2])})
GATHER = ([node("Gather", ["t", "i"], ["y"], name="look")], {"i": np.array([99])}, {"t": np.arange(10, dtype=F)})
MATMUL = ([node("MatMul", ["x", "w"], ["y"], name="head")], ONE, {"w": np.ones((4, 2), F)})
CONCAT: Graph
CONCAT = ([node("Concat", ["p", "q"], ["y"], name="cat", axis=0)], ADD[1], {})
SQUEEZE = ([node("Squeeze", ["x", "a"], ["y"], name="sq")], ONE, {"a": np.array([1])})


def check_shown(error: HeadraceError) -> str:
    """Every message is one short line with a remedy, and without places in somebody's source."""
    message = error.message
    assert len(message) <= LONGEST
    assert message.isprintable()
    for hidden in (
        "onnxruntime",
        "::",
        ".h:",
        ".cc:",
        ".cpp",
        "src/",
        "0x",
        "ptrdiff_t",
        "Status Message",
        "was false",
    ):
        assert hidden not in message
    return message


@pytest.mark.parametrize(
    ("way", "model", "words"),
    [
        (by_onnx_runtime, ADD, ["Add node '/encoder/Add_1': Attempting to broadcast", "3 by 4", "p FP32 [1, 3], q"]),
        (by_onnx_runtime, RESHAPE, ["Reshape node 'flat'", "Input shape:{1,5}, requested shape:{2,2}", "x FP32"]),
        (by_onnx_runtime, GATHER, ["Gather node 'look': indices element out of data bounds, idx=99", "i INT64 [1]"]),
        (by_onnx_runtime, MATMUL, ["MatMul node 'head': MatMul dimension mismatch", "x FP32 [1, 5]"]),
        (by_onnx_runtime, CONCAT, ["Concat node 'cat': Non concat axis dimensions must match: Axis 1", "4 and 3"]),
        (by_onnx_runtime, SQUEEZE, ["Squeeze node 'sq': Dimension of input 1 must be 1 instead of 5. shape={1,5}"]),
        (by_openvino, ADD, ["Add node 'y': Eltwise shape infer input shapes dim index: 1 mismatch", "q FP32 [1, 4]"]),
        (by_openvino, RESHAPE, ["Reshape node 'y'", "(1.5) conflicts with the reshape pattern (2.2)", "x FP32 [1, 5]"]),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_refused_input_is_told_with_node_reason_and_shapes(
    tmp_path: Path, way: Way, model: tuple[Any, Tensors, Tensors], words: list[str]
) -> None:
    error = cause_of(way(tmp_path, *model), model[1])
    assert type(error) is InputRefused
    message = check_shown(error)
    for word in words:
        assert word in message
    assert "headrace models show" in message


def test_dimensions_of_another_size_than_the_file_says_are_told(tmp_path: Path) -> None:
    import onnxruntime as ort

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6])
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "small", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString())
    for inputs, words in (
        ({"x": np.ones((1, 5, 7), F)}, ["for input: x", "index: 1 Got: 5 Expected: 4 index: 2 Got: 7 Expected: 6"]),
        ({"x": np.ones((1, 4), F)}, ["Invalid rank for input: x Got: 2 Expected: 3"]),
        ({"x": np.ones((1, 4, 6))}, ["Actual: (tensor(double)) , expected: (tensor(float))", "x FP64 [1, 4, 6]"]),
    ):
        with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
            session.run(None, inputs)
        error = cause_of(caught.value, inputs)
        assert type(error) is InputRefused
        for word in words:
            assert word in check_shown(error)
        assert "Please fix" not in error.message


def test_in_a_loop_the_innermost_node_is_told(tmp_path: Path) -> None:
    inner_add = node("Add", ["p", "q"], ["s"], name="inner")
    body = helper.make_graph(
        [inner_add, node("Identity", ["going"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
    )
    loop = node("Loop", ["times", "yes"], ["y"], name="outer", body=body)
    exc = by_onnx_runtime(tmp_path, [loop], ADD[1], {"times": np.array(2), "yes": np.array(True)})
    assert "outer" in str(exc)
    message = check_shown(cause_of(exc, ADD[1]))
    assert "Add node 'inner': Attempting to broadcast" in message
    assert "outer" not in message


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda torch: torch.ones(1, 3) + torch.ones(1, 4), "The size of tensor a (3) must match"),
        (lambda torch: torch.ones(1, 5) @ torch.ones(4, 2), "cannot be multiplied (1x5 and 4x2)"),
        (lambda torch: torch.ones(1, 5).reshape(2, 2), "shape '[2, 2]' is invalid for input of size 5"),
        (lambda torch: torch.nn.functional.embedding(torch.tensor([99]), torch.ones(10, 2)), "out of range in self"),
        (lambda torch: torch.ones(10)[torch.tensor([99])], "index 99 is out of bounds for dimension 0 with size 10"),
        (lambda torch: torch.nn.functional.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 30)), "Kernel size: (30)"),
        (lambda torch: torch.cat([torch.ones(1, 3), torch.ones(1, 4)]), "Expected size 3 but got size 4"),
        (lambda torch: torch.nn.functional.layer_norm(torch.ones(1, 5), [4]), "got input of size[1, 5]"),
    ],
    ids=range(8),
)
def test_what_torch_says_of_shapes_and_indices_is_told(run: Callable[[Any], object], words: str) -> None:
    import torch

    with pytest.raises(Exception, match=r".") as caught:
        run(torch)
    error = cause_of(caught.value, ONE)
    assert type(error) is InputRefused
    assert words in check_shown(error)


def test_what_litert_says_of_shapes_is_told() -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(ROOT / "tests/runtimes" / "small_net.tflite"))
    inputs = {"image": np.ones((2, 2, 8, 8), F)}
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, inputs["image"].shape)
    with pytest.raises(RuntimeError) as caught:
        interpreter.allocate_tensors()
    error = cause_of(caught.value, inputs)
    assert type(error) is InputRefused
    assert "TfLiteXNNPackDelegate node 7" in check_shown(error)
    assert "image FP32 [2, 2, 8, 8]" in error.message


def test_dimensions_have_the_names_of_the_signature(tmp_path: Path) -> None:
    specs = [
        TensorSpec(name="p", datatype="FP32", shape=(-1,), symbols=("len",)),
        TensorSpec(name="q", datatype="FP32", shape=(-1,), symbols=("len",), rows_at=1),
    ]
    error = cause_of(by_onnx_runtime(tmp_path, *ADD), ADD[1], specs)
    assert "p FP32 [rows=1, len=3], q FP32 [len=1, rows=4]" in check_shown(error)


def test_bytes_that_are_no_text_are_told_without_the_bytes() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"secret \xff".decode()
    error = cause_of(caught.value, {"text": np.array([b"secret \xff"], dtype=object)})
    assert type(error) is InputRefused
    assert "UTF-8" in error.message
    assert "secret" not in check_shown(error)
    # Elsewhere such an error comes from a file of the worker's, say.
    assert type(cause_of(caught.value, ONE)) is InferenceFailed


def test_a_model_that_differs_from_its_package_is_told_with_the_remedy() -> None:
    text = "output 'y' has the shape [2, 3] for 1 rows, but model.toml says y FP32 [rows, 3]"
    error = cause_of(BrokenContract(text), ONE)
    assert type(error) is OutputMismatch
    assert text in check_shown(error)
    assert "headrace models add" in error.message


def test_memory_that_one_request_alone_lacks_is_told() -> None:
    for exc in (MemoryError("17 GiB at 0x1234"), OutOfMemory("BFCArena::Allocate of 281474976710656")):
        for error in (cause_of(exc, ONE), given_up(exc, 6, ONE)):
            assert type(error) is ModelOutOfMemory
            assert "x FP32 [1, 5]" in check_shown(error)
            assert "more memory" in error.message


def test_trouble_that_did_not_pass_is_told_by_its_known_words_alone() -> None:
    known = given_up(TransientFailure("CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=gpu7"), 6, ONE)
    unknown = given_up(TransientFailure("no answer from 10.0.0.7 as admin"), 6, ONE)
    for error in (known, unknown):
        assert type(error) is RuntimeTrouble
        assert error.retriable
        assert "failed 6 times for a reason that should have passed" in check_shown(error)
    assert "CUDA failure 719" in known.message
    assert "gpu7" not in known.message
    assert "10.0.0.7" not in unknown.message
    assert type(cause_of(RuntimeError("CUDNN failure 3: device is not ready ; hostname=gpu7"), ONE)) is RuntimeTrouble


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("password=hunter2"),
        RuntimeError("hunter2 is out of bounds"),
        KeyError("hunter2"),
        OSError("/etc/hunter2"),
        RuntimeError("input 'x' was hunter2"),
        RuntimeError("the size of tensor hunter2 must match"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : hunter2"),
        RuntimeError("hunter2\nshape '[2, 2]' is invalid for input of size 5"),
    ],
    ids=range(8),
)
def test_nothing_of_an_unknown_error_is_told_but_the_shapes(exc: Exception) -> None:
    error = cause_of(exc, ONE)
    assert type(error) is InferenceFailed
    assert "hunter2" not in check_shown(error)
    assert "x FP32 [1, 5]" in error.message
    assert "worker's log" in error.message


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = SignatureMismatch("the dimension 'len' must be the same everywhere")
    assert cause_of(error, ONE) is error


@given(
    st.text(max_size=400) | st.sampled_from(["a/" * 5000, "x.h:1 " + "a::" * 5000, "(" * 5000, "/a.cc:1 f(" * 1000]),
    st.dictionaries(st.text(min_size=1, max_size=80), st.integers(0, 20), max_size=20),
)
def test_any_message_is_one_short_line(text: str, ranks: dict[str, int]) -> None:
    inputs = {name: np.zeros((1,) * rank, F) for name, rank in ranks.items()}
    onnx_text = f"Non-zero status code returned while running Add node. Name:'{text}' Status Message: {text}"
    for exc in (ValueError(text), RuntimeError(onnx_text), BrokenContract(text), MemoryError(text)):
        message = cause_of(exc, inputs).message
        assert len(message) <= LONGEST
        assert message.isprintable()
        assert ";" in message
