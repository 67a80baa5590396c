from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compression.onnx_models import answers, context_of, model_of, operators_of, package_of, random

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.quantization import WeightOnly
from headrace.compression.quantization.weight_only import pack
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage


@pytest.mark.parametrize(("step", "error"), [(WeightOnly(), 0.01), (WeightOnly(bits=4, block=16), 0.12)])
@pytest.mark.parametrize("inner", [64, 50])
def test_products_are_those_of_the_float_weights(tmp_path: Path, step: WeightOnly, error: float, inner: int) -> None:
    text = "g (float[rows,size] x) => (float[rows,8] y) { h = Gemm<transB=1>(x, w, b) y = MatMul(h, v) }"
    weights = {"w": random(32, inner), "b": random(32), "v": random(32, 8)}
    package = package_of(model_of(text.replace("size", str(inner)), weights), tmp_path)
    rows = {"x": random(64, inner)}
    product = step.convert(package, context_of(tmp_path, rows))
    assert operators_of(product).count("MatMulNBits") == 2
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(want - have).max() < error * np.abs(want).max()


@settings(max_examples=50, deadline=None)
@given(
    inner=st.integers(1, 70),
    columns=st.integers(1, 5),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
    seed=st.integers(0, 99),
)
def test_codes_stand_for_weights_to_half_a_step(inner: int, columns: int, bits: int, block: int, seed: int) -> None:
    weight = random(inner, columns, seed=seed)
    codes, scales, zeros = pack(weight, bits, block)
    blocks = -(-inner // block)
    assert codes.shape == (columns, blocks, block * bits // 8)
    assert scales.shape == (columns * blocks,)
    if bits == 4:
        codes, zeros = (
            np.stack([part & 15, part >> 4], -1).reshape(columns, -1) for part in (codes, zeros.reshape(columns, -1))
        )
    zeros = zeros.reshape(columns, -1)[:, :blocks]
    steps = scales.reshape(columns, blocks, 1)
    restored = (codes.reshape(columns, blocks, block).astype(int) - zeros[..., None]) * steps
    error = np.abs(restored.reshape(columns, -1)[:, :inner] - weight.T)
    # Half a step for the number, half for the zero.
    assert (error <= np.repeat(steps[..., 0], block, axis=1)[:, :inner] * 1.001).all()


def test_small_digits_with_the_same_answers(digits_package: ModelPackage, context: StepContext) -> None:
    product = WeightOnly(bits=4).convert(digits_package, context)
    assert product.size_bytes < digits_package.size_bytes
    rows = context.data.test.inputs
    want, have = (answers(package, rows)["label"] for package in (digits_package, product))
    assert np.mean(want == have) > 0.99


def test_a_model_of_convolutions_has_nothing_for_it(tmp_path: Path) -> None:
    package = package_of(
        model_of("g (float[rows,4,8,8] x) => (float[rows,4,6,6] y) { y = Conv(x, w) }", {"w": random(4, 4, 3, 3)}),
        tmp_path,
    )
    with pytest.raises(NotApplicable, match="no MatMul or Gemm"):
        WeightOnly().convert(package, context_of(tmp_path, {"x": random(64, 4, 8, 8)}))


@pytest.mark.parametrize("step", [WeightOnly(bits=3), WeightOnly(block=24), WeightOnly(block=8)])  # type: ignore[arg-type]
def test_impossible_bits_and_blocks_are_refused(
    digits_package: ModelPackage, context: StepContext, step: WeightOnly
) -> None:
    with pytest.raises(CompressionError, match="4 or 8 bits and blocks of 16"):
        step.convert(digits_package, context)
