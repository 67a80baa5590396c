from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.compression.onnx_models import answers, context_of, model_of, operators_of, package_of, random

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.quantization import DynamicInt8
from headrace.compression.quantization.int8.dynamic_int8 import shrink_tables
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors

TOKENS = """g (int64[rows,length] ids) => (float[rows,length,32] y) {
    e = Gather(table, ids)
    h = MatMul(e, w)
    a = Add(h, e)
    n = LayerNormalization<axis=-1>(a, gain, shift)
    y = MatMul(n, v)
}"""


@pytest.fixture
def tokens(tmp_path: Path) -> ModelPackage:
    table = random(50, 32) * np.linspace(0.5, 2, 50, dtype=np.float32)[:, None]
    weights = {"table": table, "w": random(32, 32, seed=1), "v": random(32, 32, seed=2)}
    constants = {"gain": np.ones(32, np.float32), "shift": np.zeros(32, np.float32)}
    return package_of(model_of(TOKENS, weights | constants), tmp_path)


@pytest.fixture
def ids() -> Tensors:
    return {"ids": np.random.default_rng(0).integers(0, 50, (64, 7))}


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))


def test_linear_layers_become_int8_without_any_data(tokens: ModelPackage, ids: Tensors, tmp_path: Path) -> None:
    product = DynamicInt8().convert(tokens, context_of(tmp_path, {"ids": ids["ids"][:0]}))
    assert operators_of(product).count("MatMulInteger") == 2
    want, have = (answers(package, ids)["y"] for package in (tokens, product))
    assert cosine(want, have) > 0.998
    assert product.manifest.provenance["steps"][-1]["layers"] == 2


def test_embedding_tables_get_a_scale_for_each_row(tokens: ModelPackage, ids: Tensors, tmp_path: Path) -> None:
    step = DynamicInt8(operators=("MatMul", "Gather"))
    product = step.convert(tokens, context_of(tmp_path, ids))
    assert not any(
        tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims == [50, 32]
        for tensor in onnx.load(product.file).graph.initializer
    )
    assert len(product.manifest.provenance["steps"][-1]["tables"]) == 1
    want, have = (answers(package, ids)["y"] for package in (tokens, product))
    assert cosine(want, have) > 0.998


def test_a_table_of_small_and_large_rows_loses_nothing_in_the_small_ones(tmp_path: Path, ids: Tensors) -> None:
    table = random(50, 32) * np.logspace(-4, 2, 50, dtype=np.float32)[:, None]
    text = "g (int64[rows,length] ids) => (float[rows,length,32] e) { e = Gather(table, ids) }"
    model = model_of(text, {"table": table})
    package = package_of(model, tmp_path)
    want = answers(package, ids)["e"]
    assert shrink_tables(model, {""}) == [""]
    onnx.save(model, tmp_path / "small.onnx")
    have = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(None, ids)[0]
    assert (np.abs(want - have) <= 0.51 / 127 * np.abs(want).max(axis=-1, keepdims=True)).all()


def test_residual_sums_stay_apart_from_layer_norms(tokens: ModelPackage, ids: Tensors, tmp_path: Path) -> None:
    product = DynamicInt8().convert(tokens, context_of(tmp_path, ids))
    assert "Sum" in operators_of(product)


def test_gemm_is_written_as_matmul_whatever_its_attributes(tmp_path: Path) -> None:
    text = """g (float[rows,16] x) => (float[rows,4] y) {
        h = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)
        y = Gemm(h, v)
    }"""
    weights = {"w": random(8, 16), "b": random(8), "v": random(8, 4, seed=1)}
    package = package_of(model_of(text, weights), tmp_path)
    rows = {"x": random(64, 16)}
    product = DynamicInt8().convert(package, context_of(tmp_path, rows))
    assert operators_of(product).count("MatMulInteger") == 2
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(have - want).max() < 0.05 * np.abs(want).max()


def test_excluded_and_sensitive_layers_stay_in_float(tokens: ModelPackage, ids: Tensors, tmp_path: Path) -> None:
    product = DynamicInt8(sensitive_share=0.5).convert(tokens, context_of(tmp_path, ids))
    (left,) = product.manifest.provenance["steps"][-1]["left_in_float"]
    assert operators_of(product).count("MatMulInteger") == 1
    product = DynamicInt8(exclude=(left,)).convert(tokens, context_of(tmp_path, ids))
    assert operators_of(product).count("MatMul") == 1
    with pytest.raises(CompressionError, match="at least 0 and below 1"):
        DynamicInt8(sensitive_share=1.0).convert(tokens, context_of(tmp_path, ids))


def test_only_the_linear_layer_of_the_digits_changes(digits_package: ModelPackage, context: StepContext) -> None:
    product = DynamicInt8().convert(digits_package, context)
    assert operators_of(product).count("Conv") == 3
    assert "MatMulInteger" in operators_of(product)


def test_a_model_without_constant_weights_has_nothing_to_quantize(tmp_path: Path) -> None:
    text = "g (float[rows,4,4] x) => (float[rows,4,4] y) { y = MatMul(x, x) }"
    package = package_of(model_of(text), tmp_path)
    with pytest.raises(NotApplicable, match="no MatMul or Gemm with constant weights"):
        DynamicInt8().convert(package, context_of(tmp_path, {"x": random(64, 4, 4)}))


def test_other_operators_are_refused(digits_package: ModelPackage, context: StepContext) -> None:
    with pytest.raises(CompressionError, match="can't quantize Conv"):
        DynamicInt8(operators=("Conv",)).convert(digits_package, context)
