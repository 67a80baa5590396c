"""Signatures are read once, and again when their package changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.contracts.errors import PackageError, UnknownModel
from headrace.producers import catalog
from headrace.producers.catalog import Catalog

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
    clock.now += catalog.MAX_AGE_S
    assert datatype(found) == "FP32"


def test_a_broken_package_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    found = Catalog(tmp_path, Clock())
    write(tmp_path, "1", "FP33")
    with pytest.raises(PackageError, match="FP33"):
        found.signature("digits")
    write(tmp_path, "1", "FP32")
    assert datatype(found) == "FP32"
