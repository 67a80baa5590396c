from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, operators_of, package_of, random

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.data.row_layout import RUN_ROWS, RowRuns
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.quantization import StaticInt8
from headrace.compression.quantization.int8.calibration import Method, find_ranges
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors, TensorSpec

METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile")


@pytest.mark.parametrize("method", METHODS)
def test_int8_digits_are_smaller_and_as_right(
    digits_package: ModelPackage, context: StepContext, splits: Splits, method: Method
) -> None:
    product = StaticInt8(method=method).convert(digits_package, context)
    product.verify()
    assert product.size_bytes < 0.4 * digits_package.size_bytes
    right = [
        int((answers(package, splits.test.inputs)["label"] == splits.test.labels).sum())
        for package in (digits_package, product)
    ]
    assert right[1] >= right[0] - 3
    record = product.manifest.provenance["steps"][-1]
    assert (record["step"], record["method"], record["calibration_rows"]) == ("StaticInt8", method, 256)


def test_labels_stay_the_largest_scores(digits_package: ModelPackage, context: StepContext, splits: Splits) -> None:
    outputs = answers(StaticInt8().convert(digits_package, context), splits.test.inputs)
    assert outputs["label"].dtype == np.int64
    assert np.array_equal(outputs["label"], outputs["scores"].argmax(axis=1))
    # With logits of 255 steps there would be a few hundred different scores at most.
    assert len(np.unique(outputs["scores"])) > 1000


@pytest.mark.parametrize(
    "step", [StaticInt8(per_channel=False), StaticInt8(activations="int8"), StaticInt8(weight_bits=7)]
)
def test_other_forms_of_int8_are_as_right(
    digits_package: ModelPackage, context: StepContext, splits: Splits, step: StaticInt8
) -> None:
    outputs = answers(step.convert(digits_package, context), splits.test.inputs)
    assert np.mean(outputs["label"] == splits.test.labels) > 0.97


def test_seven_bits_stay_within_seven_bits(digits_package: ModelPackage, context: StepContext) -> None:
    product = StaticInt8(weight_bits=7).convert(digits_package, context)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(product.file).graph.initializer]
    assert max(int(np.abs(array.astype(int)).max()) for array in weights if array.dtype == np.int8) <= 64


def test_the_same_data_gives_the_same_bytes(digits_package: ModelPackage, context: StepContext, tmp_path: Path) -> None:
    again = dataclasses.replace(context, folder=tmp_path / "again")
    products = [StaticInt8().convert(digits_package, place) for place in (context, again)]
    assert products[0].file.read_bytes() == products[1].file.read_bytes()


def test_excluded_layers_stay_in_float(digits_package: ModelPackage, context: StepContext) -> None:
    product = StaticInt8(exclude=("Gemm", "node_Conv_53")).convert(digits_package, context)
    weights = {tensor.name: tensor for tensor in onnx.load(product.file).graph.initializer}
    assert weights["network.features.3.weight"].data_type == onnx.TensorProto.FLOAT
    assert "network.classify.2.weight" in weights
    assert "network.features.7.weight" not in weights


def test_a_share_of_sensitive_layers_stays_in_float(digits_package: ModelPackage, context: StepContext) -> None:
    product = StaticInt8(sensitive_share=0.3).convert(digits_package, context)
    record = product.manifest.provenance["steps"][-1]
    assert record["layers"] == 2
    assert len(record["left_in_float"]) == 1


def test_thin_convolutions_stay_in_float_unless_asked_for(digits_package: ModelPackage, context: StepContext) -> None:
    layers = [
        StaticInt8(min_channels=count).convert(digits_package, context).manifest.provenance["steps"][-1]["layers"]
        for count in (4, 1)
    ]
    assert layers == [3, 4]


def test_unknown_names_to_exclude_are_refused(digits_package: ModelPackage, context: StepContext) -> None:
    with pytest.raises(CompressionError, match=r"neither a node nor an operator named 'Konv'.*Conv, Gemm"):
        StaticInt8(exclude=("Konv",)).convert(digits_package, context)


def test_everything_excluded_leaves_nothing_to_do(digits_package: ModelPackage, context: StepContext) -> None:
    with pytest.raises(NotApplicable, match="is left for StaticInt8"):
        StaticInt8(exclude=("Conv", "Gemm")).convert(digits_package, context)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda rows: {"image": rows["image"][:31]}, "at least 32 rows, but there are 31"),
        (lambda rows: {"image": rows["image"][:0]}, "at least 32 rows, but there are 0"),
        (lambda rows: {"picture": rows["image"]}, "'image' is missing"),
        (lambda rows: {"image": rows["image"].astype(np.float64)}, "must be FP32"),
        (lambda rows: {"image": rows["image"][:, :, :7]}, "must have the shape"),
        (lambda rows: {"image": rows["image"] * np.float32("nan")}, "NaN or infinity"),
    ],
)
def test_wrong_calibration_rows_are_refused_and_the_source_is_untouched(
    digits_package: ModelPackage, context: StepContext, rows: Callable[[Tensors], Tensors], message: str
) -> None:
    before = bytes_of(digits_package)
    wrong = Dataset(rows(context.data.calibration.inputs))
    with pytest.raises(DataError, match=message):
        StaticInt8().convert(digits_package, dataclasses.replace(context, data=Splits(wrong, wrong, wrong, wrong)))
    assert bytes_of(digits_package) == before


def test_nan_in_calibration_rows_is_named_where_the_model_allows_it(tmp_path: Path) -> None:
    package = package_of(
        model_of("g (float[rows,4] x) => (float[rows,4] y) { y = MatMul(x, w) }", {"w": random(4, 4)}), tmp_path
    )
    rows = random(64, 4)
    rows[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in 'x'"):
        StaticInt8().convert(package, context_of(tmp_path, {"x": rows}))


def test_a_model_that_makes_nan_of_calibration_rows_is_named(tmp_path: Path) -> None:
    text = "g (float[rows,4] x) => (float[rows,4] y) { z = MatMul(x, w) root = Sqrt(z) y = MatMul(root, w) }"
    package = package_of(model_of(text, {"w": random(4, 4)}), tmp_path)
    with pytest.raises(CompressionError, match="NaN or infinity in 'root'"):
        StaticInt8().convert(package, context_of(tmp_path, {"x": random(64, 4)}))


def test_a_quantized_model_is_not_quantized_again(digits_package: ModelPackage, context: StepContext) -> None:
    product = StaticInt8().convert(digits_package, context)
    with pytest.raises(NotApplicable, match="quantized already"):
        StaticInt8(per_channel=False).convert(product, context)


def test_logits_as_output_keep_their_name_and_stay_float(tmp_path: Path) -> None:
    text = "g (float[rows,8] x) => (float[rows,4] y) { h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v) }"
    package = package_of(model_of(text, {"w": random(8, 16), "b": random(16), "v": random(16, 4)}), tmp_path)
    rows = {"x": random(64, 8)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    assert operators_of(product)[-1] == "Gemm"
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(have - want).max() < 0.05 * np.abs(want).max()
    assert len(np.unique(have)) > 200


def test_products_of_two_activations_stay_in_float(tmp_path: Path) -> None:
    text = """g (float[rows,8,8] x) => (float[rows,8,8] y) {
        q = MatMul(x, w) k = Transpose<perm=[0,2,1]>(q) s = MatMul(q, k) p = Softmax(s) y = MatMul(p, x)
    }"""
    package = package_of(model_of(text, {"w": random(8, 8, scale=0.3)}), tmp_path)
    product = StaticInt8().convert(package, context_of(tmp_path, {"x": random(64, 8, 8)}))
    assert product.manifest.provenance["steps"][-1]["layers"] == 1


def test_calibration_runs_few_rows_at_a_time_and_all_of_them() -> None:
    batches = list(RowRuns({"x": np.arange(100)}, (TensorSpec(name="x", datatype="INT64"),), RUN_ROWS).runs())
    assert max(len(batch["x"]) for batch in batches) <= 16
    assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), np.arange(100))


def test_ranges_without_outliers_lose_a_rare_peak(tmp_path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(model_of("g (float[rows,100] x) => (float[rows,100] y) { y = Relu(x) }"))
    rows = random(64, 100)
    rows[0, 0] = 1000
    context = context_of(tmp_path, {"x": rows})
    runs = RowRuns({"x": rows}, (TensorSpec(name="x", datatype="FP32", shape=(100,)),), RUN_ROWS)
    ranges = {method: find_ranges(model, runs, context, method, 99.9) for method in METHODS}
    assert ranges["minmax"]["y"] == (0.0, 1000.0)
    assert ranges["entropy"]["y"][1] <= 250
    assert ranges["percentile"]["y"][1] < 10
    assert ranges["percentile"]["x"][0] == pytest.approx(rows.min(), abs=1.5)


def test_what_comes_before_the_first_int8_layer_stays_in_float_and_pools_first(tmp_path: Path) -> None:
    text = """pooled (float[N, 1, 8, 8] x) => (float[N, 4, 4, 4] y) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, first)
        b = Relu (a)
        c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c, second)
        e = Relu (d)
        y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (e, third)
    }"""
    weights = {"first": random(8, 1, 3, 3), "second": random(16, 8, 3, 3, seed=1), "third": random(4, 16, 3, 3, seed=2)}
    package = package_of(model_of(text, weights), tmp_path)
    inputs = {"x": random(64, 1, 8, 8, seed=3)}
    product = StaticInt8().convert(package, context_of(tmp_path, inputs))
    # The thin first layer is not worth int8, so neither is what follows it up to the next.
    assert operators_of(product)[:4] == ["Conv", "MaxPool", "Relu", "QuantizeLinear"]
    before, after = answers(package, inputs)["y"], answers(product, inputs)["y"]
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_branches_read_what_the_graph_around_them_rounds(tmp_path: Path) -> None:
    model = model_of("g (float[rows,8] x) => (float[rows,8] y) { a = MatMul (x, w)  r = Relu (a)  c = MatMul (r, v) }")
    model.graph.initializer.extend(
        numpy_helper.from_array(random(8, 8, seed=seed), name) for seed, name in enumerate(("w", "v"))
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    then_branch, else_branch = (
        onnx.helper.make_graph(
            [onnx.helper.make_node("Add", ["r", "c"], [name])],
            name,
            [],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)],
        )
        for name in ("then", "else")
    )
    # Else ONNX Runtime would take the branch at once.
    text = "g (float[rows,8] x) => (float[rows,8] y) { s = Shape (x)  n = Size (s)  z = Greater (n, zero) }"
    asked = model_of(text, {"zero": np.array(0, np.int64)})
    model.graph.node.extend(asked.graph.node)
    model.graph.initializer.extend(asked.graph.initializer)
    either = onnx.helper.make_node("If", ["z"], ["y"], then_branch=then_branch, else_branch=else_branch)
    model.graph.node.append(either)
    package, rows = package_of(model, tmp_path), {"x": random(64, 8, seed=3)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(want - have).max() < 0.05 * np.abs(want).max()


def test_gemms_that_int8_has_no_kernel_for_become_matmuls_and_sums(tmp_path: Path) -> None:
    text = """g (float[rows,16] x) => (float[rows,16] y) {
        a = Gemm <alpha = 0.5, transB = 1> (x, w, b)  r = Relu (a)  c = Gemm (r, v, b)  y = Relu (c)
    }"""
    weights = {"w": random(16, 16), "v": random(16, 16, seed=1), "b": random(16, seed=2)}
    package, rows = package_of(model_of(text, weights), tmp_path), {"x": random(64, 16, seed=3)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    operators = operators_of(product)
    assert [operators.count(name) for name in ("MatMul", "Sum", "Gemm")] == [1, 1, 1]
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(want - have).max() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize("activation", ["Relu (c)", "Clip (c, low, high)"])
def test_an_activation_after_the_last_layer_is_not_lost(tmp_path: Path, activation: str) -> None:
    text = f"g (float[rows,16] x) => (float[rows,16] y) {{ a = MatMul (x, w)  c = Gemm (a, w, b)  y = {activation} }}"
    limits = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    weights = {"w": random(16, 16), "b": random(16, seed=2), **limits}
    package, rows = package_of(model_of(text, weights), tmp_path), {"x": random(64, 16, seed=3)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert have.min() == 0
    assert np.abs(want - have).mean() < 0.05 * np.abs(want).max()
