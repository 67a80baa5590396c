"""ONNX Runtime: values that numpy holds otherwise, optional inputs, sequences, outputs that a package leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_files import sequence_of, value
from tests.runtimes.conftest import package_of

from headrace.contracts import ModelPackage, OutputMismatch, PackageError, Tensors, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, StoreAdvice
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model
from headrace.runtimes.local.onnx import OnnxRuntime
from headrace.runtimes.local.onnx_support.outputs import model_of_outputs

FLOAT, BF16, STRING = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING
X = np.array([[1, -2, 3.14159], [np.inf, np.nan, 1e-3]], np.float32)


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (3,), **fields: Any) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, **fields)


MakePackage = Callable[..., ModelPackage]


@pytest.fixture
def package(tmp_path: Path) -> MakePackage:
    """Make a package of a graph."""

    def make(
        nodes: list[onnx.NodeProto],
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        initializers: Sequence[onnx.TensorProto] = (),
        **changes: Any,
    ) -> ModelPackage:
        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, folder / "model.onnx")
        takes, gives = specs
        return package_of(folder, "onnxruntime", folder / "model.onnx", inputs=takes, outputs=gives, **changes)

    return make


def loaded(package: ModelPackage) -> LoadedModel:
    return OnnxRuntime("cpu", 1).load(package)


def test_bf16_comes_out_beside_other_datatypes(package: MakePackage) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=BF16), helper.make_node("Neg", ["x"], ["z"])]
    made = package(
        nodes,
        [value("x", ["n", 3])],
        [value("y", ["n", 3], BF16), value("z", ["n", 3])],
        ((spec("x"),), (spec("y", "BF16"), spec("z"))),
    )
    outputs = loaded(made).infer({"x": X})
    assert list(outputs) == ["y", "z"]
    assert outputs["y"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(outputs["y"].view(np.uint16), X.astype(ml_dtypes.bfloat16).view(np.uint16))
    np.testing.assert_array_equal(outputs["z"], -X)


def test_bf16_goes_in_and_out_and_a_result_is_the_caller_s(package: MakePackage) -> None:
    made = package(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", ["n", 3], BF16)],
        [value("y", ["n", 3], BF16)],
        ((spec("x", "BF16"),), (spec("y", "BF16"),)),
    )
    model = loaded(made)
    given = X.astype(ml_dtypes.bfloat16)
    strided = np.repeat(given, 2, axis=0)[::2]
    first = model.infer({"x": strided})["y"]
    model.infer({"x": np.zeros((2, 3), ml_dtypes.bfloat16)})
    np.testing.assert_array_equal(first.view(np.uint16), given.view(np.uint16))
    assert first.flags.writeable
    assert first.flags.owndata


def test_bf16_of_no_elements_comes_out(package: MakePackage) -> None:
    made = package(
        [helper.make_node("Cast", ["x"], ["y"], to=BF16)],
        [value("x", ["n", "w"])],
        [value("y", ["n", "w"], BF16)],
        ((spec("x", shape=(-1,)),), (spec("y", "BF16", (-1,)),)),
    )
    assert loaded(made).infer({"x": np.ones((2, 0), np.float32)})["y"].shape == (2, 0)


def test_a_single_bf16_value_stays_one_without_dimensions(package: MakePackage) -> None:
    made = package(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", [], BF16)],
        [value("y", [], BF16)],
        ((spec("x", "BF16", (), per_request=True),), (spec("y", "BF16", (), per_request=True),)),
    )
    assert loaded(made).infer({"x": np.array(2, ml_dtypes.bfloat16)})["y"].shape == ()


def test_bf16_for_strings_is_refused_when_the_model_is_loaded(package: MakePackage) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Cast", ["f"], ["y"], to=BF16)]
    made = package(
        nodes,
        [value("x", ["n"], STRING)],
        [value("y", ["n"], BF16)],
        ((spec("x", "BYTES", ()),), (spec("y", "BF16", ()),)),
    )
    with pytest.raises(PackageError, match=r"gives BF16 for the input x BYTES .*; leave the BF16 outputs out"):
        loaded(made)


def test_an_input_with_a_default_may_be_left_out_or_given(package: MakePackage) -> None:
    made = package(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        [value("x", ["n", 3]), value("k", [1])],
        [value("y", ["n", 3])],
        ((spec("x"), spec("k", shape=(1,), per_request=True, optional=True)), (spec("y"),)),
        [numpy_helper.from_array(np.array([2], np.float32), "k")],
    )
    model = loaded(made)
    np.testing.assert_array_equal(model.infer({"x": X})["y"], X * 2)
    np.testing.assert_array_equal(model.infer({"x": X, "k": np.array([5], np.float32)})["y"], X * np.float32(5))
    np.testing.assert_array_equal(model.infer({"x": X})["y"], X * 2)


def test_an_optional_tensor_may_be_left_out_or_given(package: MakePackage) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n", 3]))
    given = helper.make_graph([helper.make_node("OptionalGetElement", ["o"], ["t"])], "t", [], [value("t", ["n", 3])])
    absent = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "e", [], [value("e", ["n", 3])])
    made = package(
        [
            helper.make_node("OptionalHasElement", ["o"], ["has"]),
            helper.make_node("If", ["has"], ["y"], then_branch=given, else_branch=absent),
        ],
        [value("x", ["n", 3]), helper.make_value_info("o", kind)],
        [value("y", ["n", 3])],
        ((spec("x"), spec("o", optional=True)), (spec("y"),)),
    )
    model = loaded(made)
    np.testing.assert_array_equal(model.infer({"x": X})["y"], X)
    np.testing.assert_array_equal(model.infer({"x": X, "o": X[::-1]})["y"], X[::-1])


@pytest.mark.parametrize(
    ("kind", "datatype", "given"),
    [
        (FLOAT, "FP32", np.arange(12, dtype=np.float32).reshape(2, 2, 3)),
        (STRING, "BYTES", np.array([[[b"a", b"bc", b""]], [[b"d", "\u00e9".encode(), b"f"]]], dtype=object)),
        (FLOAT, "FP32", np.empty((0, 4, 3), np.float32)),
    ],
    ids=["numbers", "text", "none"],
)
def test_a_sequence_goes_in_stacked_and_comes_out_stacked(
    package: MakePackage, kind: int, datatype: str, given: np.ndarray
) -> None:
    made = package(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("SequenceLength", ["x"], ["count"])],
        [sequence_of("x", ["n", 3], kind)],
        [sequence_of("y", ["n", 3], kind), value("count", [], TensorProto.INT64)],
        (
            (spec("x", datatype, (-1, -1, 3), per_request=True, sequence=True),),
            (
                spec("y", datatype, (-1, -1, 3), per_request=True, sequence=True),
                spec("count", "INT64", (), per_request=True),
            ),
        ),
    )
    outputs = loaded(made).infer({"x": given})
    assert outputs["count"] == len(given)
    assert outputs["y"].dtype == given.dtype
    assert len(outputs["y"]) == len(given)
    np.testing.assert_array_equal(outputs["y"], given if given.size else np.empty((0, 0, 3)))


def test_a_sequence_of_different_shapes_is_an_error_that_names_the_output(package: MakePackage) -> None:
    made = package(
        [helper.make_node("SplitToSequence", ["x", "sizes"], ["y"], axis=0)],
        [value("x", [3, 2])],
        [sequence_of("y", [None, 2])],
        (
            (spec("x", shape=(3, 2), per_request=True),),
            (spec("y", shape=(-1, -1, 2), per_request=True, sequence=True),),
        ),
        [numpy_helper.from_array(np.array([1, 2], np.int64), "sizes")],
    )
    with pytest.raises(OutputMismatch, match=r"output 'y' is a sequence of tensors of different shapes, such as"):
        loaded(made).infer({"x": np.ones((3, 2), np.float32)})


def chain(package: MakePackage, keep: tuple[str, ...]) -> ModelPackage:
    """Return a package of y = relu(x) and of z = if c then sqrt(w @ x) else x, of which some outputs are kept."""
    inner = helper.make_graph([helper.make_node("Sqrt", ["heavy"], ["t"])], "t", [], [value("t", ["n", 3])])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "e", [], [value("e", ["n", 3])])
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("MatMul", ["x", "w"], ["heavy"]),
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=other),
    ]
    return package(
        nodes,
        [value("x", ["n", 3]), value("c", [], TensorProto.BOOL)],
        [value("y", ["n", 3]), value("z", ["n", 3])],
        ((spec("x"), spec("c", "BOOL", (), per_request=True)), (spec("y"), spec("z"))),
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
        store=StoreAdvice(keep=keep),
    )


@pytest.mark.parametrize("keep", [("y",), ("z",), ("z", "y"), ()])
def test_only_kept_outputs_come_and_all_inputs_are_still_taken(package: MakePackage, keep: tuple[str, ...]) -> None:
    made = chain(package, keep)
    x = np.array([[1, 4, 9]], np.float32)
    outputs = loaded(made).infer({"x": x, "c": np.array(True)})
    expected = {"y": x, "z": np.sqrt(x)}
    assert set(outputs) == set(keep or ("y", "z"))
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, expected[name])


def test_what_only_other_outputs_need_is_not_computed(package: MakePackage) -> None:
    content = model_of_outputs(chain(package, ("y",)))
    assert isinstance(content, bytes)
    graph = onnx.ModelProto.FromString(content).graph
    assert [node.op_type for node in graph.node] == ["Relu"]
    assert not graph.initializer


def test_kept_outputs_find_weights_that_lie_beside_the_model(package: MakePackage) -> None:
    made = chain(package, ("z",))
    model = onnx.load(made.file)
    (made.folder / "weights").mkdir()
    onnx.save(model, made.file, save_as_external_data=True, size_threshold=0, location="weights/w.bin")
    beside = replace(made, manifest=replace(made.manifest, files={"weights/w.bin": "0"}))
    x = np.array([[1, 4, 9]], np.float32)
    np.testing.assert_array_equal(loaded(beside).infer({"x": x, "c": np.array(True)})["z"], np.sqrt(x))


def test_a_fixed_number_of_rows_is_refused_unless_the_package_says_it(package: MakePackage) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    made = package([relu], [value("x", [4, 3])], [value("y", [4, 3])], ((spec("x"),), (spec("y"),)))
    with pytest.raises(PackageError, match=r"takes exactly 4 rows.*row_sizes = \[4\]"):
        loaded(made)
    advice = BatchingAdvice(max_rows=4, row_sizes=(4,))
    padded = replace(made, manifest=replace(made.manifest, batching=advice))
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_array_equal(load_model(padded, "cpu", 1).infer({"x": x})["y"], np.maximum(x, 0))


def test_a_run_that_fails_prints_nothing_and_its_exception_tells_all(
    package: MakePackage, capfd: pytest.CaptureFixture[str]
) -> None:
    made = package(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="squeeze_it")],
        [value("x", ["n", 3])],
        [value("y", ["n", 3])],
        ((spec("x"),), (spec("y"),)),
        [numpy_helper.from_array(np.array([1, 3], np.int64), "shape")],
    )
    model = loaded(made)
    with pytest.raises(Exception, match=r"running Reshape node.*squeeze_it.*\{2,3\}"):
        model.infer({"x": X})
    np.testing.assert_array_equal(model.infer({"x": X[:1]})["y"], X[:1])
    assert capfd.readouterr() == ("", "")


def test_numbers_cross_as_they_are(package: MakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays of a request and of an answer are those of the session: nothing is done for each tensor."""
    relu = helper.make_node("Relu", ["x"], ["y"])
    made = package([relu], [value("x", ["n", 3])], [value("y", ["n", 3])], ((spec("x"),), (spec("y"),)))
    model = loaded(made)
    crossed: list[tuple[list[str], Tensors, list[np.ndarray]]] = []
    run = ort.InferenceSession.run

    def watched(self: ort.InferenceSession, outputs: list[str], inputs: Tensors, *rest: Any) -> list[np.ndarray]:
        values: list[np.ndarray] = run(self, outputs, inputs, *rest)
        crossed.append((outputs, inputs, values))
        return values

    monkeypatch.setattr(ort.InferenceSession, "run", watched)
    given = {"x": X}
    answer = model.infer(given)
    ((outputs, inputs, values),) = crossed
    assert outputs == ["y"]
    assert inputs is given
    assert answer["y"] is values[0]
