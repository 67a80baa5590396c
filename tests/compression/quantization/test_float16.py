from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, package_of, random

from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.quantization import HalfPrecision
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage

OVERFLOWING = "g (float[rows,8] x) => (float[rows,8] y) { h = MatMul(x, w) big = Mul(h, h) y = MatMul(big, v) }"


@pytest.fixture
def overflowing(tmp_path: Path) -> ModelPackage:
    return package_of(model_of(OVERFLOWING, {"w": random(8, 8, scale=200), "v": random(8, 8, scale=1e-6)}), tmp_path)


def test_half_of_the_size_with_the_same_inputs_and_outputs(
    digits_package: ModelPackage, context: StepContext, splits: Splits
) -> None:
    product = HalfPrecision().convert(digits_package, context)
    assert product.size_bytes < 0.55 * digits_package.size_bytes
    want, have = (answers(package, splits.test.inputs) for package in (digits_package, product))
    assert np.abs(want["scores"] - have["scores"]).max() < 0.01
    assert have["scores"].dtype == np.float32
    assert product.manifest.provenance["steps"][-1]["largest_value"] == pytest.approx(7.2, abs=0.1)


def test_the_product_is_valid_onnx(digits_package: ModelPackage, context: StepContext) -> None:
    onnx.checker.check_model(onnx.load(HalfPrecision().convert(digits_package, context).file))


def test_the_first_layer_that_overflows_is_named(overflowing: ModelPackage, tmp_path: Path) -> None:
    before = bytes_of(overflowing)
    with pytest.raises(
        CompressionError,
        match=r"overflows in Mul 'Mul_1': 'big' reaches .* with --exclude MatMul_2,Mul_1, or",
    ):
        HalfPrecision().convert(overflowing, context_of(tmp_path, {"x": random(64, 8)}))
    assert bytes_of(overflowing) == before


def test_what_overflows_can_stay_in_float(overflowing: ModelPackage, tmp_path: Path) -> None:
    rows = {"x": random(64, 8)}
    product = HalfPrecision(exclude=("Mul_1", "MatMul_2")).convert(overflowing, context_of(tmp_path, rows))
    want, have = (answers(package, rows)["y"] for package in (overflowing, product))
    assert np.allclose(want, have, rtol=0.02, atol=0.02 * np.abs(want).max())


def test_attention_masks_do_not_overflow(tmp_path: Path) -> None:
    text = """g (float[rows,8] x, float[rows,8] keep) => (float[rows,8] y) {
        gone = Sub(one, keep) mask = Mul(gone, lowest) s = Add(x, mask) p = Softmax(s) y = MatMul(p, w)
    }"""
    constants = {"one": np.float32(1).reshape(1), "lowest": np.array([np.finfo(np.float32).min]), "w": random(8, 8)}
    package = package_of(model_of(text, constants), tmp_path)
    keep = np.ones((64, 8), np.float32)
    keep[:, 5:] = 0
    rows = {"x": random(64, 8), "keep": keep}
    product = HalfPrecision().convert(package, context_of(tmp_path, rows))
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(want - have).max() < 0.01


def test_a_model_without_float_weights_has_nothing_to_halve(tmp_path: Path) -> None:
    package = package_of(model_of("g (float[rows,4] x) => (float[rows,4] y) { y = Relu(x) }"), tmp_path)
    with pytest.raises(NotApplicable, match="no float32 weights"):
        HalfPrecision().convert(package, context_of(tmp_path, {"x": random(64, 4)}))
