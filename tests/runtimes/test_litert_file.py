"""LiteRT: int8 at the edge, whole numbers narrowed and widened."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.runtimes.conftest import HERE, package_of

from headrace.contracts import PackageError
from headrace.contracts.package import BatchingAdvice
from headrace.contracts.signature import TensorSpec
from headrace.runtimes.local.litert_file import LiteRtRuntime, _to_file


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def int8_package(tmp_path_factory):
    """The small model with INT8 inputs, scores and arithmetic; its package says FP32 as before."""
    from ai_edge_quantizer import quantizer, recipe

    folder = tmp_path_factory.mktemp("models") / "small" / "1"
    folder.mkdir(parents=True)
    tool = quantizer.Quantizer(str(HERE / "small_net.tflite"), recipe.static_wi8_ai8())
    with warnings.catch_warnings():
        # The quantizer keeps all tensors to see their ranges, and is warned by the interpreter of what that costs.
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
        ranges = tool.calibrate({"serving_default": [{"args_0": images(64, seed)} for seed in range(4)]})
        tool.quantize(ranges).export_model(str(folder / "model.tflite"))
    return package_of(folder, "litert", folder / "model.tflite")


def test_int8_inputs_and_outputs_are_converted_at_the_edge(int8_package, packages):
    exact = LiteRtRuntime("cpu", 1).load(packages("litert")).infer({"image": images(64)})
    found = LiteRtRuntime("cpu", 1).load(int8_package).infer({"image": images(64)})
    assert found["scores"].dtype == np.float32
    assert np.abs(found["scores"] - exact["scores"]).max() < 0.1
    assert (found["label"] == exact["label"]).mean() > 0.9


def test_values_beyond_the_range_of_int8_are_its_ends_and_nan_is_refused(int8_package):
    model = LiteRtRuntime("cpu", 1).load(int8_package)
    large = model.infer({"image": np.full((1, 1, 8, 8), 1e9, np.float32)})["scores"]
    larger = model.infer({"image": np.full((1, 1, 8, 8), np.inf, np.float32)})["scores"]
    np.testing.assert_array_equal(large, larger)
    with pytest.raises(ValueError, match="holds NaN, for which int8 has no code"):
        model.infer({"image": np.full((1, 1, 8, 8), np.nan, np.float32)})


def test_whole_numbers_are_narrowed_only_while_they_fit():
    detail = {"name": "ids", "dtype": np.int32, "quantization": (0.0, 0)}
    assert _to_file(np.array([[7, -1]]), detail).dtype == np.int32
    with pytest.raises(ValueError, match="input 'ids' holds values outside int32"):
        _to_file(np.array([[1 << 31]]), detail)


def test_a_file_that_says_any_number_of_rows_and_takes_three_is_found_out(tmp_path):
    folder = tmp_path / "small" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes((HERE / "small_net_stuck.tflite").read_bytes())
    with pytest.raises(PackageError, match=r"can't run other numbers of rows than the one it was converted with"):
        LiteRtRuntime("cpu", 1).load(package_of(folder, "litert", folder / "model.tflite"))
    padded = BatchingAdvice(max_rows=3, row_sizes=(3,))
    model = LiteRtRuntime("cpu", 1).load(package_of(folder, "litert", folder / "model.tflite", batching=padded))
    assert model.infer({"image": images(7)})["label"].shape == (7,)


def test_other_shapes_than_the_file_has_are_refused(packages):
    package = packages("litert")
    folder, file = package.folder, package.file
    other = (TensorSpec(name="image", datatype="FP32", shape=(3, 9, 9)),)
    try:
        with pytest.raises(PackageError, match=r"'image' of shape \[-1, 1, 8, 8\], but model\.toml says \[3, 9, 9\]"):
            LiteRtRuntime("cpu", 1).load(package_of(folder, "litert", file, inputs=other))
    finally:
        package_of(folder, "litert", file)
