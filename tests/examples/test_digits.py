"""The demo's data and model package are what their papers say: split, checksum, attribution, accuracy."""

from __future__ import annotations

import hashlib

import numpy as np
import onnxruntime
import pytest
from examples.digits.data import DEMO_DATA, DIGITS, TRAIN_ROWS, npz_bytes
from numpy.typing import NDArray

from headrace.contracts.package.manifest import ModelDirectory, ModelPackage


@pytest.fixture
def package() -> ModelPackage:
    return ModelDirectory(DEMO_DATA / "models").get("digits", "1")


@pytest.fixture
def held_out() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    with np.load(DIGITS) as file:
        images, labels = file["images"][TRAIN_ROWS:], file["labels"][TRAIN_ROWS:]
    return (images.astype(np.float32) / np.float32(16))[:, None], labels


def test_the_data_file_holds_the_digits_and_nothing_that_varies() -> None:
    with np.load(DIGITS) as file:
        images, labels = file["images"], file["labels"]
    assert (images.shape, images.dtype, images.min(), images.max()) == ((1797, 8, 8), np.uint8, 0, 16)
    assert (labels.shape, labels.dtype, set(labels.tolist())) == ((1797,), np.uint8, set(range(10)))
    assert npz_bytes(images, labels) == DIGITS.read_bytes()


def test_the_attribution_names_creators_licence_and_the_very_file() -> None:
    text = (DEMO_DATA / "ATTRIBUTION.md").read_text("utf-8")
    for part in ("Alpaydin", "Kaynak", "CC BY 4.0", hashlib.sha256(DIGITS.read_bytes()).hexdigest()):
        assert part in text


def test_the_package_is_whole_and_has_the_signature_that_the_demo_uses(package: ModelPackage) -> None:
    package.verify()
    assert [spec.describe() for spec in package.manifest.inputs] == ["image FP32 [rows, 1, 8, 8]"]
    assert [spec.describe() for spec in package.manifest.outputs] == ["label INT64 [rows]", "scores FP32 [rows, 10]"]
    assert not package.manifest.inputs[0].allow_nan
    assert package.manifest.labels == tuple("0123456789")


@pytest.mark.parametrize("rows", [1, 7, 64, 899])
def test_the_package_states_the_accuracy_it_has_at_every_batch_size(
    package: ModelPackage, held_out: tuple[NDArray[np.float32], NDArray[np.uint8]], rows: int
) -> None:
    images, labels = held_out
    session = onnxruntime.InferenceSession(package.file, providers=["CPUExecutionProvider"])
    found = [session.run(["label"], {"image": images[at : at + rows]})[0] for at in range(0, len(images), rows)]
    hits = int((np.concatenate(found) == labels).sum())
    stated = package.manifest.provenance
    assert (hits, len(labels)) == (stated["accuracy_hits"], stated["accuracy_rows"])
    assert stated["accuracy"] == hits / len(labels)
    assert stated["train_rows"] == TRAIN_ROWS


def test_the_model_file_is_small_and_names_no_file_of_the_machine_that_made_it(package: ModelPackage) -> None:
    content = package.file.read_bytes()
    assert len(content) < 200_000
    assert b".py" not in content


def test_the_compressed_version_takes_and_gives_what_the_trained_one_does(package: ModelPackage) -> None:
    compressed = ModelDirectory(DEMO_DATA / "models").get("digits", "2")
    compressed.verify()
    assert compressed.manifest.inputs == package.manifest.inputs
    assert compressed.manifest.outputs == package.manifest.outputs
    assert compressed.manifest.labels == package.manifest.labels
    record = compressed.manifest.provenance["compression"]
    assert record["original_sha256"] == package.manifest.sha256
    assert record["test"]["drop"] <= record["max_drop"]
    assert record["measurement"]["rows"][-1]["ratio"]["low"] > 1
    assert b"network.py" not in compressed.file.read_bytes()
