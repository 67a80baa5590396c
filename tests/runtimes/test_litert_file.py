"""LiteRT: int8 at the edge, whole numbers narrowed and widened."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tests.runtimes import recurrent
from tests.runtimes.conftest import HERE, package_of

from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.loading import load_model
from headrace.runtimes.local.litert_file import LiteRtRuntime, _to_file


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def int8_package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
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


def test_int8_inputs_and_outputs_are_converted_at_the_edge(
    int8_package: ModelPackage, packages: Callable[[str], ModelPackage]
) -> None:
    exact = LiteRtRuntime("cpu", 1).load(packages("litert")).infer({"image": images(64)})
    found = LiteRtRuntime("cpu", 1).load(int8_package).infer({"image": images(64)})
    assert found["scores"].dtype == np.float32
    assert np.abs(found["scores"] - exact["scores"]).max() < 0.1
    assert (found["label"] == exact["label"]).mean() > 0.9


def test_values_beyond_the_range_of_int8_are_its_ends_and_nan_is_refused(int8_package: ModelPackage) -> None:
    model = LiteRtRuntime("cpu", 1).load(int8_package)
    large = model.infer({"image": np.full((1, 1, 8, 8), 1e9, np.float32)})["scores"]
    larger = model.infer({"image": np.full((1, 1, 8, 8), np.inf, np.float32)})["scores"]
    np.testing.assert_array_equal(large, larger)
    with pytest.raises(ValueError, match="holds NaN, for which int8 has no code"):
        model.infer({"image": np.full((1, 1, 8, 8), np.nan, np.float32)})


def test_whole_numbers_are_narrowed_only_while_they_fit() -> None:
    detail = {"name": "ids", "dtype": np.int32, "quantization": (0.0, 0)}
    assert _to_file(np.array([[7, -1]]), detail).dtype == np.int32
    with pytest.raises(ValueError, match="input 'ids' holds values outside int32"):
        _to_file(np.array([[1 << 31]]), detail)


def test_a_file_that_says_any_number_of_rows_and_takes_three_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "small" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes((HERE / "small_net_stuck.tflite").read_bytes())
    with pytest.raises(PackageError, match=r"can't run other numbers of rows than the one it was converted with"):
        LiteRtRuntime("cpu", 1).load(package_of(folder, "litert", folder / "model.tflite"))
    padded = BatchingAdvice(max_rows=3, row_sizes=(3,))
    model = load_model(package_of(folder, "litert", folder / "model.tflite", batching=padded), "cpu", 1)
    assert model.infer({"image": images(7)})["label"].shape == (7,)


def test_other_shapes_than_the_file_has_are_refused(packages: Callable[[str], ModelPackage]) -> None:
    package = packages("litert")
    folder, file = package.folder, package.file
    other = (TensorSpec(name="image", datatype="FP32", shape=(3, 9, 9)),)
    try:
        with pytest.raises(PackageError, match=r"'image' of shape \[-1, 1, 8, 8\], but .* says \[-1, 3, 9, 9\]"):
            LiteRtRuntime("cpu", 1).load(package_of(folder, "litert", file, inputs=other))
    finally:
        package_of(folder, "litert", file)


X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def two_outputs(tmp_path: Path, *names: str) -> ModelPackage:
    """A package of the file whose signature has alpha = 2x and zeta = x + 1, with these names of outputs."""
    folder = tmp_path / "two" / "1"
    folder.mkdir(parents=True)
    file = folder / "model.tflite"
    file.write_bytes((HERE / "two_outputs.tflite").read_bytes())
    outputs = tuple(TensorSpec(name=name, datatype="FP32", shape=(4,)) for name in names)
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
    return package_of(folder, "litert", file, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize("names", [("zeta", "alpha"), ("alpha", "zeta"), ("zeta",)])
def test_outputs_go_by_the_names_of_the_signature_whatever_the_order_of_the_file(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    found = load_model(two_outputs(tmp_path, *names), "cpu", 1).infer({"x": X})
    expected = {"alpha": X * 2, "zeta": X + 1}
    assert tuple(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_outputs_go_by_the_names_of_tensors_too(tmp_path: Path) -> None:
    details = Interpreter(str(HERE / "two_outputs.tflite")).get_signature_runner().get_output_details()
    names = {signature: detail["name"] for signature, detail in details.items()}
    found = load_model(two_outputs(tmp_path, names["zeta"], names["alpha"]), "cpu", 1).infer({"x": X})
    np.testing.assert_array_equal(found[names["zeta"]], X + 1)
    np.testing.assert_array_equal(found[names["alpha"]], X * 2)


def test_outputs_of_equal_shape_under_other_names_are_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"outputs alpha, zeta, and model\.toml lists one, two: .* leave open"):
        load_model(two_outputs(tmp_path, "one", "two"), "cpu", 1)


def test_outputs_under_other_names_go_by_datatype_and_shape_where_these_leave_one_way(tmp_path: Path) -> None:
    folder = tmp_path / "recurrent" / "1"
    folder.mkdir(parents=True)
    file = folder / "model.tflite"
    file.write_bytes((HERE / "recurrent.tflite").read_bytes())
    state = TensorSpec(name="state", datatype="FP32", shape=(2, 4), rows_at=1)
    answer = TensorSpec(name="answer", datatype="FP32", shape=(4,))
    package = package_of(folder, "litert", file, inputs=recurrent.INPUTS, outputs=(answer, state))
    inputs = recurrent.request(3)
    found = load_model(package, "cpu", 1).infer(inputs)
    np.testing.assert_allclose(found["state"], recurrent.answer(**inputs)["h1"], rtol=1e-5)
    np.testing.assert_allclose(found["answer"], recurrent.answer(**inputs)["y"], rtol=1e-4, atol=1e-4)


def test_several_signatures_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "two" / "1"
    folder.mkdir(parents=True)
    file = folder / "model.tflite"
    file.write_bytes((HERE / "two_signatures.tflite").read_bytes())
    with pytest.raises(PackageError, match="has the signatures first, second, of which a package serves one"):
        load_model(package_of(folder, "litert", file), "cpu", 1)
