"""What no step over ONNX packages can change is refused in one line, and the package stays as it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, package_of, random

from headrace.compression.errors import NotApplicable
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8, WeightOnly
from headrace.compression.quantization.graph_optimization import OptimisedGraph
from headrace.compression.steps import PackageStep
from headrace.contracts import ModelPackage, PackageError, read_package
from headrace.contracts.package.manifest import sha256_of, write_manifest

STEPS: list[PackageStep] = [StaticInt8(), DynamicInt8(), HalfPrecision(), WeightOnly(), OptimisedGraph(level="basic")]
LINEAR = "g (float[rows,8] x) => (float[rows,8] y) { y = MatMul(x, w) }"


def replaced(package: ModelPackage, model: onnx.ModelProto | bytes, runtime: str = "onnxruntime") -> ModelPackage:
    """Put another file into a package, which no runtime was asked about."""
    package.file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    manifest = msgspec.structs.replace(package.manifest, sha256=sha256_of(package.file), runtime=runtime)
    write_manifest(package.folder, manifest)
    return read_package(package.folder)


@pytest.fixture
def linear(tmp_path: Path) -> ModelPackage:
    return package_of(model_of(LINEAR, {"w": random(8, 8)}), tmp_path)


def refuse(step: PackageStep, package: ModelPackage, folder: Path, error: type[Exception], message: str) -> None:
    before = bytes_of(package) if package.size_bytes < 2**20 else {}
    with pytest.raises(error, match=message):
        step.convert(package, context_of(folder, {"x": random(64, 8)}))
    if before:
        assert bytes_of(package) == before


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_packages_of_other_runtimes(linear: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    package = replaced(linear, onnx.load(linear.file), runtime="openvino")
    refuse(
        step, package, tmp_path, NotApplicable, "starts from an ONNX package, but made 0 is of the runtime 'openvino'"
    )


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_custom_operators_are_named_with_their_domain(linear: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    model = onnx.load(linear.file)
    model.graph.node.append(helper.make_node("Sparkle", ["x"], ["z"], domain="com.example"))
    refuse(step, replaced(linear, model), tmp_path, NotApplicable, "custom operators .*: com.example:Sparkle$")


def test_custom_operators_within_branches_are_named(linear: ModelPackage, tmp_path: Path) -> None:
    model = onnx.load(linear.file)
    branch = helper.make_graph([helper.make_node("Sparkle", [], ["z"], domain="com.example")], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    refuse(StaticInt8(), replaced(linear, model), tmp_path, NotApplicable, "com.example:Sparkle")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_frozen_batch_dimensions(linear: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    model = onnx.load(linear.file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    refuse(step, replaced(linear, model), tmp_path, NotApplicable, "'x' .* frozen batch dimension of 1")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_damaged_files(linear: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    refuse(step, replaced(linear, b"\xff\xff not ONNX"), tmp_path, PackageError, "not an ONNX file")


def test_files_that_changed_since_they_were_added(linear: ModelPackage, tmp_path: Path) -> None:
    linear.file.write_bytes(linear.file.read_bytes() + b"\x00")
    refuse(StaticInt8(), linear, tmp_path, PackageError, "does not match its checksum")


def test_models_of_more_than_two_gibibytes(linear: ModelPackage, tmp_path: Path) -> None:
    os.truncate(linear.file, 2**31)
    refuse(StaticInt8(), linear, tmp_path, NotApplicable, "larger than 2 GiB")


@pytest.mark.parametrize("step", STEPS[:4], ids=lambda step: type(step).__name__)
def test_models_that_are_quantized_already(linear: ModelPackage, tmp_path: Path, step: PackageStep) -> None:
    product = DynamicInt8().convert(linear, context_of(tmp_path, {"x": random(64, 8)}))
    shutil.copytree(product.folder, tmp_path / "kept")
    refuse(step, read_package(tmp_path / "kept"), tmp_path, NotApplicable, "quantized already .*MatMulInteger")


def test_graphs_for_one_kind_of_processor(linear: ModelPackage, tmp_path: Path) -> None:
    model = onnx.load(linear.file)
    model.graph.node.append(helper.make_node("Conv", ["x"], ["z"], domain="com.microsoft.nchwc"))
    refuse(StaticInt8(), replaced(linear, model), tmp_path, NotApplicable, "optimised for one kind of processor")


def test_old_opsets_are_raised(tmp_path: Path) -> None:
    package = package_of(model_of(LINEAR, {"w": random(8, 8)}, opset=9), tmp_path)
    rows = {"x": random(64, 8)}
    product = StaticInt8().convert(package, context_of(tmp_path, rows))
    opsets = {entry.domain: entry.version for entry in onnx.load(product.file).opset_import}
    assert opsets[""] == 13
    want, have = (answers(each, rows)["y"] for each in (package, product))
    assert np.abs(want - have).max() < 0.05 * np.abs(want).max()
