from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.compression.onnx_models import bytes_of, context_of, model_of, package_of, random

from headrace.compression.errors import CompressionError
from headrace.compression.onnx_model.verify import finish
from headrace.compression.quantization import WeightOnly
from headrace.contracts import ModelPackage

LINEAR = "g (float[rows,8] x) => (float[rows,8] y) { y = MatMul(x, w) }"


@pytest.fixture
def linear(tmp_path: Path) -> ModelPackage:
    return package_of(model_of(LINEAR, {"w": random(8, 8)}), tmp_path)


@pytest.mark.parametrize("rows", [64, 2, 0])
def test_a_product_is_proved_with_whatever_rows_there_are(linear: ModelPackage, tmp_path: Path, rows: int) -> None:
    (room := tmp_path / "room").mkdir()
    context = context_of(tmp_path, {"x": random(64, 8)[:rows]})
    product = finish(onnx.load(linear.file), linear, context, room, {"step": "Nothing"})
    assert product.manifest.provenance["steps"] == [{"step": "Nothing"}]


@pytest.mark.parametrize(
    ("text", "weight", "message"),
    [
        (
            LINEAR.replace("[rows,8] y", "[rows,4] y"),
            random(8, 4),
            r"'y' .* is float32 \[1, 4\], but was float32 \[1, 8\]",
        ),
        (LINEAR, np.full((8, 8), np.inf, np.float32), "'y' .* is NaN or infinite where it was a number"),
        (LINEAR.replace("float[rows,8] y", "double[rows,8] y"), random(8, 8), "can't be loaded"),
        (LINEAR.replace(" y", " z"), random(8, 8), "can't be loaded: .* has no output y"),
    ],
)
def test_a_product_that_can_not_serve_as_its_source_is_refused_and_removed(
    linear: ModelPackage, tmp_path: Path, text: str, weight: np.ndarray, message: str
) -> None:
    (room := tmp_path / "room").mkdir()
    before = bytes_of(linear)
    with pytest.raises(CompressionError, match=message):
        finish(model_of(text, {"w": weight}), linear, context_of(tmp_path, {"x": random(64, 8)}), room, {})
    assert not room.exists()
    assert bytes_of(linear) == before


def test_rows_with_nan_are_fine_for_steps_that_find_no_ranges(linear: ModelPackage, tmp_path: Path) -> None:
    rows = random(64, 8)
    rows[0, 0] = np.nan
    WeightOnly().convert(linear, context_of(tmp_path, {"x": rows})).verify()
