"""Signatures are read once, and again when their package changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.contracts.errors import PackageError, UnknownModel
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.producers.requests import signatures
from headrace.producers.requests.signatures import Catalog, agreed
from headrace.queueing.consumer.serving import Served

_MANIFEST = """
name = "digits"
version = "{version}"
runtime = "onnxruntime"
file = "model.onnx"
sha256 = "00"
inputs = [{{ name = "x", datatype = "{datatype}", shape = [3] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [3] }}]
"""


def write(root: Path, version: str, datatype: str) -> None:
    folder = root / "digits" / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(_MANIFEST.format(version=version, datatype=datatype))


def datatype(found: Catalog, version: str = "") -> str:
    signature = found.signature("digits", version)
    assert signature is not None
    return signature.inputs[0].datatype


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_version_is_seen_at_once(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "1", "FP32")
    assert datatype(found) == "FP32"
    write(tmp_path, "2", "INT64")
    assert (datatype(found), datatype(found, "1")) == ("INT64", "FP32")


def test_a_changed_manifest_is_seen_at_once(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "1", "FP32")
    assert datatype(found) == "FP32"
    write(tmp_path, "1", "INT64")
    assert datatype(found) == "INT64"


def test_an_unchanged_package_is_read_once(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "1", "FP32")
    assert found.signature("digits") is found.signature("digits")


def test_a_removed_model_is_unknown_only_while_others_are_known(tmp_path: Path) -> None:
    clock = Clock()
    found = Catalog(tmp_path, clock)
    write(tmp_path, "1", "FP32")
    with pytest.raises(UnknownModel):
        found.signature("other")
    (tmp_path / "digits" / "1" / "model.toml").unlink()
    assert found.signature("digits") is None
    assert found.signature("other") is None
    write(tmp_path, "1", "FP32")
    clock.now += signatures.MAX_AGE_S
    assert datatype(found) == "FP32"


def test_a_broken_package_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "1", "FP33")
    with pytest.raises(PackageError, match="FP33"):
        found.signature("digits")
    write(tmp_path, "1", "FP32")
    assert datatype(found) == "FP32"


def served(version: str, size: int) -> Served:
    specs = (TensorSpec(name="x", datatype="FP32", shape=(size,)),)
    return Served(version, Signature(inputs=specs, outputs=specs))


def test_workers_are_asked_once_a_second_and_model(tmp_path: Path) -> None:
    clock = Clock()
    found = Catalog(tmp_path, clock)
    assert [found.due("digits"), found.due("digits"), found.due("other")] == [True, False, True]
    clock.now += signatures.SERVED_AGE_S
    assert [found.due("digits"), found.due("digits")] == [True, False]


def test_what_workers_serve_goes_before_what_lies_on_disk(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "2", "INT64")
    assert found.resolve("digits")[1:] == ("", "2")
    found.learn("digits", [served("1", 3)])
    for asked in ("", "latest"):
        assert found.resolve("digits", asked) == (served("1", 3).signature, "", "1")
    assert found.resolve("digits", "1") == (served("1", 3).signature, "1", "1")
    known = found.resolve("digits", "2")
    assert known.signature is not None
    assert (known.signature.inputs[0].datatype, known.version) == ("INT64", "2")
    assert found.resolve("digits", "9") == (None, "9", "")  # perhaps the workers have it
    found.learn("digits", [])
    assert found.resolve("digits")[1:] == ("", "2")
    with pytest.raises(UnknownModel):
        found.resolve("digits", "9")


def test_workers_that_serve_equal_signatures_may_serve_any_version(tmp_path: Path) -> None:
    assert agreed([served("9", 3), served("10", 3)]) == (served("10", 3), False)


def test_of_different_signatures_the_oldest_is_asked_for_by_name(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    found.learn("digits", [served("10", 4), served("9", 3), served("11", 3)])
    assert found.resolve("digits") == (served("9", 3).signature, "9", "9")


def test_a_package_whose_file_is_missing_gives_way_to_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path, "1", "FP32")
    write(tmp_path, "2", "INT64")
    (tmp_path / "digits" / "1" / "model.onnx").touch()
    assert Catalog(tmp_path, Clock()).resolve("digits")[2] == "1"
    (tmp_path / "digits" / "2" / "model.onnx").touch()
    assert Catalog(tmp_path, Clock()).resolve("digits")[2] == "2"
