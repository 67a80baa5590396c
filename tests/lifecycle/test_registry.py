"""Packages in a model directory: added, numbered, removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.onnx_files import save, value

from headrace.contracts import ModelDirectory, PackageError, UnknownModel
from headrace.lifecycle.packages.registry import add_model, remove_model
from headrace.runtimes.local.onnx import OnnxRuntime

X = value("x", ["rows", 4])
Y = value("y", ["rows", 4])
ADD = helper.make_node("Add", ["x", "x"], ["y"])


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "models")


def test_a_package_says_all_that_the_file_says(models: ModelDirectory, double: Path) -> None:
    package = add_model(double, models, labels=["a", "b", "c", "d"], max_rows=16, allow_nan=False, store="binary")
    manifest = package.manifest
    assert (package.name, package.version, manifest.runtime) == ("double", "1", "onnxruntime")
    assert [spec.describe() for spec in manifest.inputs] == ["x FP32 [rows, 4]"]
    assert [spec.describe() for spec in manifest.outputs] == ["y FP32 [rows, 4]"]
    assert not manifest.inputs[0].allow_nan
    assert (manifest.labels, manifest.batching.max_rows, manifest.store.outputs) == (tuple("abcd"), 16, "binary")
    assert manifest.provenance["source"] == "double.onnx"
    assert manifest.provenance["opset"] == 17
    package.verify()


def test_each_addition_is_the_next_version_and_the_first_stays_as_it_was(models: ModelDirectory, double: Path) -> None:
    first = add_model(double, models)
    before = (first.folder / "model.toml").read_bytes()
    assert [add_model(double, models).version for _ in range(2)] == ["2", "3"]
    add_model(double, models, version="10")
    assert add_model(double, models).version == "11"
    assert (first.folder / "model.toml").read_bytes() == before


def test_a_version_that_exists_is_never_overwritten(models: ModelDirectory, double: Path) -> None:
    add_model(double, models, version="v1")
    with pytest.raises(PackageError, match="versions never change"):
        add_model(double, models, version="v1")
    assert models.versions("double") == ["v1"]


def test_nothing_is_left_of_a_package_that_could_not_be_made(models: ModelDirectory, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(PackageError):
        add_model(tmp_path / "broken.onnx", models)
    assert list(models.root.iterdir()) == []


@pytest.mark.parametrize(("file", "name"), [("my model (v2).onnx", "my-model-v2"), ("модель.onnx", "model")])
def test_the_name_comes_from_the_file(models: ModelDirectory, tmp_path: Path, file: str, name: str) -> None:
    assert add_model(save(tmp_path / file, [ADD], [X], [Y]), models).name == name


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", ""])
def test_a_name_cannot_leave_the_model_directory(models: ModelDirectory, double: Path, name: str) -> None:
    if name:
        with pytest.raises(PackageError, match="not allowed"):
            add_model(double, models, name=name)
    else:
        assert add_model(double, models, name=name).name == "double"


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\xff\xff\xff\xff", b"\0" * 1000])
def test_a_file_that_is_no_model_is_refused_in_one_line(models: ModelDirectory, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    with pytest.raises(PackageError, match=r"not an ONNX file|is empty"):
        add_model(file, models)


def test_a_truncated_file_is_refused(models: ModelDirectory, double: Path) -> None:
    double.write_bytes(double.read_bytes()[:-20])
    with pytest.raises(PackageError, match=r"not an ONNX file|is empty"):
        add_model(double, models)


def test_a_file_that_is_not_there_is_named(models: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"gone\.onnx can't be read: it does not exist"):
        add_model(tmp_path / "gone.onnx", models)


def external(tmp_path: Path) -> Path:
    weights = numpy_helper.from_array(np.full(4, 3, dtype=np.float32), "w")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return save(
        tmp_path / "m.onnx",
        [add],
        [X],
        [Y],
        [weights],
        save_as_external_data=True,
        size_threshold=0,
        location="m.onnx.data",
    )


def test_weights_beside_the_file_are_taken_into_it(models: ModelDirectory, tmp_path: Path) -> None:
    file = external(tmp_path)
    package = add_model(file, models)
    file.with_name("m.onnx.data").unlink()
    model = OnnxRuntime("cpu", 1).load(package)
    assert model.infer({"x": np.zeros((2, 4), np.float32)})["y"].tolist() == [[3.0] * 4] * 2
    assert sorted(path.name for path in package.folder.iterdir()) == ["model.onnx", "model.toml"]


def test_missing_weights_beside_the_file_are_named(models: ModelDirectory, tmp_path: Path) -> None:
    file = external(tmp_path)
    file.with_name("m.onnx.data").unlink()
    with pytest.raises(PackageError, match=r"m\.onnx\.data"):
        add_model(file, models)


def test_labels_that_fit_no_output_are_refused(models: ModelDirectory, double: Path) -> None:
    with pytest.raises(PackageError, match="3 labels fit no output"):
        add_model(double, models, labels=["a", "b", "c"])


def test_removing_the_last_version_removes_the_model(models: ModelDirectory, double: Path) -> None:
    add_model(double, models)
    add_model(double, models)
    remove_model(models, "double", "1")
    assert models.versions("double") == ["2"]
    remove_model(models, "double", "2")
    assert models.names() == []
    assert list(models.root.iterdir()) == []
    with pytest.raises(UnknownModel, match="there is no model 'double'"):
        remove_model(models, "double", "2")
