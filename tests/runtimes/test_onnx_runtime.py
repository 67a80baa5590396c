"""ONNX Runtime as a runtime: devices, datatypes that numpy lacks, and files that can't be loaded."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.workers.conftest import write_package

from headrace.contracts import ConfigurationError, PackageError, read_package
from headrace.runtimes.base import find_runtime
from headrace.runtimes.local.onnx import OnnxRuntime, providers_for

CPU = ["CPUExecutionProvider"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_device_that_is_absent_is_named_with_what_to_install(device: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"device '{device}' needs .*onnxruntime-gpu.*--device cpu"):
        OnnxRuntime(device, 1)


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:x", ""])
def test_a_device_that_does_not_exist_is_refused(device: str) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        providers_for(device, CPU)


def test_an_index_chooses_the_device_and_operators_fall_back_to_the_cpu() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers_for("cuda:1", available) == [("CUDAExecutionProvider", {"device_id": "1"}), *CPU]
    assert providers_for("tensorrt", available) == available
    assert providers_for("cpu", available) == CPU


def test_an_unknown_runtime_is_named_with_those_that_exist() -> None:
    with pytest.raises(PackageError, match=r"no runtime is called 'abacus'; installed are: .*onnxruntime"):
        find_runtime("abacus", "cpu", 1)


def test_a_file_that_is_no_model_is_refused_in_one_line(models: Path) -> None:
    (models / "double" / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(PackageError, match=r"model\.onnx can't be loaded by ONNX Runtime") as caught:
        OnnxRuntime("cpu", 1).load(read_package(models / "double" / "1"))
    assert "\n" not in caught.value.message


def test_a_manifest_with_other_names_than_the_file_is_refused(models: Path) -> None:
    manifest = models / "double" / "1" / "model.toml"
    manifest.write_text(manifest.read_text().replace('name = "y"', 'name = "z"'))
    with pytest.raises(PackageError, match=r"has no output z as model\.toml says; it has: y"):
        OnnxRuntime("cpu", 1).load(read_package(models / "double" / "1"))


def test_strings_and_closing(models: Path) -> None:
    model = OnnxRuntime("cpu", 1).load(read_package(models / "echo" / "1"))
    text = np.array([["é".encode()], [b"b"]], dtype=object)
    assert model.infer({"text": text})["same"].tolist() == text.tolist()
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.infer({"text": text})


def test_bfloat16_goes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(write_package.__globals__["_KINDS"], "BF16", TensorProto.BFLOAT16)
    folder = write_package(
        tmp_path,
        "cast",
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        {"x": ("BF16", (2,))},
        {"y": ("FP32", (2,))},
    )
    model = OnnxRuntime("cpu", 1).load(read_package(folder))
    x = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    assert model.infer({"x": x})["y"].tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize(
    ("was", "becomes", "cause"),
    [
        ('datatype = "FP32"', 'datatype = "FP64"', "has input 'x' of FP32, but model.toml says FP64"),
        ("shape = [4]", "shape = [5]", r"has input 'x' of shape \['rows', 4\], but model.toml says x FP32 \[rows, 5\]"),
    ],
)
def test_a_package_that_contradicts_its_file_is_refused_when_it_is_loaded(
    models: Path, was: str, becomes: str, cause: str
) -> None:
    manifest = models / "double" / "1" / "model.toml"
    manifest.write_text(manifest.read_text().replace(was, becomes, 1))
    with pytest.raises(PackageError, match=cause):
        find_runtime("onnxruntime", "cpu", 1).load(read_package(manifest.parent))
