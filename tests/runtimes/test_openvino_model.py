"""OpenVINO: precision, files of weights, ONNX files, and inputs that it would not refuse itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from tests.runtimes.conftest import package_of, write_onnx, write_openvino

from headrace.contracts import ModelDirectory, ModelPackage, PackageError
from headrace.lifecycle.packages.registry import add_model
from headrace.runtimes.local.openvino_model import OpenVinoRuntime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "small" / "1"
    made.mkdir(parents=True)
    return made


def option(model: Any, name: str) -> str:
    return str(model._request.get_compiled_model().get_property(name))


def test_models_run_in_fp32_with_one_stream_and_the_threads_asked_for(packages: Callable[[str], ModelPackage]) -> None:
    model = OpenVinoRuntime("cpu", 2).load(packages("openvino"))
    assert "float32" in option(model, "INFERENCE_PRECISION_HINT")
    assert option(model, "INFERENCE_NUM_THREADS") == "2"
    assert option(model, "NUM_STREAMS") == "1"
    assert option(model, "ENABLE_CPU_PINNING") == "False"


def test_a_file_may_ask_for_another_precision(folder: Path) -> None:
    (source,) = write_onnx(folder)
    core = ov.Core()
    # On a processor without BF16 OpenVINO keeps FP32.
    expected = "bfloat16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"
    graph = core.read_model(source)
    graph.set_rt_info("bf16", ["runtime_options", "INFERENCE_PRECISION_HINT"])
    ov.save_model(graph, folder / "model.xml")
    package = package_of(folder, "openvino", folder / "model.xml", folder / "model.bin")
    assert expected in option(OpenVinoRuntime("cpu", 1).load(package), "INFERENCE_PRECISION_HINT")


def test_onnx_files_run_too(folder: Path) -> None:
    package = package_of(folder, "openvino", *write_onnx(folder))
    outputs = OpenVinoRuntime("cpu", 1).load(package).infer({"image": np.zeros((2, 1, 8, 8), np.float32)})
    assert outputs["label"].shape == (2,)


def test_weights_without_a_checksum_are_refused(folder: Path) -> None:
    package = package_of(folder, "openvino", write_openvino(folder)[0])
    with pytest.raises(PackageError, match=r"lists 0 files of weights \(\.bin\) under \[files\]"):
        OpenVinoRuntime("cpu", 1).load(package)


def test_weights_that_are_cut_short_are_refused(folder: Path) -> None:
    files = write_openvino(folder)
    files[1].write_bytes(files[1].read_bytes()[:40])
    with pytest.raises(PackageError, match=r"model\.xml can't be loaded by OpenVINO: .") as caught:
        OpenVinoRuntime("cpu", 1).load(package_of(folder, "openvino", *files))
    assert "\n" not in caught.value.message


def test_other_names_than_the_file_has_are_refused(folder: Path) -> None:
    from headrace.contracts.package.signature import TensorSpec

    other = (TensorSpec(name="picture", datatype="FP32", shape=(1, 8, 8)),)
    with pytest.raises(PackageError, match=r"has the inputs image, but model\.toml lists picture"):
        OpenVinoRuntime("cpu", 1).load(package_of(folder, "openvino", *write_openvino(folder), inputs=other))


def test_no_rows_are_refused_rather_than_answered_with_the_last_request(
    packages: Callable[[str], ModelPackage],
) -> None:
    model = OpenVinoRuntime("cpu", 1).load(packages("openvino"))
    model.infer({"image": np.ones((3, 1, 8, 8), np.float32)})
    with pytest.raises(ValueError, match="no rows"):
        model.infer({"image": np.ones((0, 1, 8, 8), np.float32)})


@pytest.mark.parametrize("threads", [1, 2])
def test_shapes_that_do_not_fit_are_refused_on_any_number_of_threads(tmp_path: Path, threads: int) -> None:
    # On one thread OpenVINO itself gives the answer of the request before: somebody else's.
    size = ov.opset13.parameter([-1, -1], np.float32, name="x")
    size.output(0).set_names({"x"})
    square = ov.opset13.matmul(size, size, False, False)
    square.output(0).set_names({"y"})
    ov.save_model(ov.Model([square], [size], "square"), tmp_path / "m.xml", compress_to_fp16=False)
    package = add_model(tmp_path / "m.xml", ModelDirectory(tmp_path / "models"))
    model = OpenVinoRuntime("cpu", threads).load(package)
    assert model.infer({"x": np.full((2, 2), 3, np.float32)})["y"].tolist() == [[18, 18], [18, 18]]
    with pytest.raises((ValueError, RuntimeError), match=r"match|incompatible"):
        model.infer({"x": np.ones((1, 2), np.float32)})
    assert model.infer({"x": np.ones((3, 3), np.float32)})["y"].shape == (3, 3)
