"""What a job is pinned to: what workers serve, else the model directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.contracts.errors import PackageError, SignatureMismatch, UnknownModel
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import Manifest, ModelDirectory, write_manifest
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.producers.jobs.pinning import check_mapping, pin
from headrace.queueing.consumer.serving import Served

SPECS = (TensorSpec(name="image", datatype="FP32", shape=(4,)),)
SIGNATURE = Signature(inputs=SPECS, outputs=SPECS)


def served(version: str, checksum: str = "") -> Served:
    return Served(version, SIGNATURE, checksum)


def add(root: Path, version: str, **fields: object) -> Manifest:
    manifest = Manifest(
        name="digits",
        version=version,
        runtime="onnxruntime",
        file="model.onnx",
        sha256="0" * 64,
        inputs=SPECS,
        outputs=SPECS,
        **fields,  # type: ignore[arg-type]
    )
    folder = root / "digits" / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    write_manifest(folder, manifest)
    return manifest


@pytest.fixture
def directory(tmp_path: Path) -> ModelDirectory:
    add(tmp_path, "2")
    add(tmp_path, "10")
    return ModelDirectory(tmp_path)


def test_the_newest_that_workers_serve_counts_whatever_lies_here(directory: ModelDirectory) -> None:
    assert pin([served("3", "c3"), served("9", "c9")], directory, "digits")[:2] == ("9", "c9")
    assert pin([served("3", "c3"), served("9", "c9")], directory, "digits", "3")[:2] == ("3", "c3")
    assert pin([served("3", "c3")], directory, "digits", "latest")[:2] == ("3", "c3")


def test_an_older_worker_announces_no_checksum_and_the_package_here_has_it(directory: ModelDirectory) -> None:
    found = pin([served("2")], directory, "digits")
    assert found.checksum == directory.get("digits", "2").manifest.checksum
    with pytest.raises(PackageError, match="upgrade them"):
        pin([served("7")], directory, "digits")


def test_a_model_that_no_worker_serves_is_looked_for_in_the_directory(directory: ModelDirectory) -> None:
    assert pin([], directory, "digits").version == "10"
    assert pin([], directory, "digits", "2").version == "2"
    # Served otherwise, but a worker can load it.
    assert pin([served("9")], directory, "digits", "2").version == "2"


@pytest.mark.parametrize(
    ("model", "version", "reason"),
    [
        ("digts", "", "did you mean 'digits'"),
        ("digits", "3", "version '3'"),
        ("../x", "", "not allowed"),
    ],
)
def test_an_unknown_model_is_said_to_be_one(directory: ModelDirectory, model: str, version: str, reason: str) -> None:
    with pytest.raises(UnknownModel, match=reason):
        pin([], directory, model, version)


def test_versions_that_are_served_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="they serve: 9, 10"):
        pin([served("10"), served("9")], ModelDirectory(tmp_path), "digits", "3")


def test_a_checksum_covers_what_decides_about_outputs(tmp_path: Path) -> None:
    plain = add(tmp_path / "a", "1")
    assert add(tmp_path / "b", "1", provenance={"note": "measured again"}).checksum == plain.checksum
    assert add(tmp_path / "c", "1", labels=("a", "b")).checksum != plain.checksum


def test_a_mapping_to_what_is_no_input_names_the_close_match() -> None:
    spec = ScoreSpec(model="digits", inputs=("/a",), output="/b", mapping={"pixels": "imge"})
    with pytest.raises(SignatureMismatch, match="did you mean 'image'"):
        check_mapping(spec, SIGNATURE)
