"""Recipes for images and text in model.toml: read exactly, or refused with the remedy."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w

from headrace.contracts import ModelPackage, PackageError, TensorSpec, read_package
from headrace.contracts.package.image_recipe import IMAGENET, ImageDecode
from headrace.contracts.package.manifest import Manifest, write_manifest
from headrace.contracts.package.text_recipe import Tokenizer

CONTENT = b"x"
SUM = hashlib.sha256(CONTENT).hexdigest()
IMAGE = {"name": "image", "datatype": "FP32", "shape": [3, 224, 224]}
IDS = [{"name": name, "datatype": "INT64", "shape": [-1]} for name in ("input_ids", "attention_mask")]


def read(folder: Path, inputs: list[dict[str, Any]], **more: Any) -> ModelPackage:
    document = {
        "name": "m",
        "version": "1",
        "runtime": "onnxruntime",
        "file": "model.onnx",
        "sha256": SUM,
        "inputs": inputs,
        "outputs": [{"name": "y", "datatype": "FP32"}],
        **more,
    }
    for name in ("model.onnx", "tokenizer.json"):
        (folder / name).write_bytes(CONTENT)
    (folder / "model.toml").write_text(tomli_w.dumps(document))
    return read_package(folder)


def test_an_image_recipe_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    recipe = {"resize": [256, 256], "crop": 224, "mean": [0.5], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    package = read(tmp_path, [{**IMAGE, "decode": recipe}])
    found = package.manifest.inputs[0].decode
    assert found == ImageDecode(resize=(256, 256), crop=224, mean=(0.5,), std=(0.2, 0.3, 0.4), interpolation="bicubic")
    assert found.size == (224, 224)
    write_manifest(tmp_path, package.manifest)
    assert read_package(tmp_path).manifest == package.manifest


def test_packages_without_recipes_are_as_they_were(tmp_path: Path) -> None:
    manifest = read(tmp_path, [IMAGE]).manifest
    assert not manifest.inputs[0].decode
    assert not manifest.tokenizer
    assert "decode" not in msgspec.to_builtins(manifest)["inputs"][0]
    write_manifest(tmp_path, manifest)
    text = (tmp_path / "model.toml").read_text()
    assert "decode" not in text
    assert "tokenizer" not in text


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"resize": 0.5}, "Expected `int | array`"),
        ({"resize": -1}, "resize must be 1 to 16384"),
        ({"crop": [224, 0]}, "crop must be 1 to 16384"),
        ({"crop": 200}, "it gives 200 by 200 pixels, but the input takes 224 by 224: set crop"),
        ({"scale": 0}, "scale must be a number above 0"),
        ({"mean": [1.0, 2.0]}, "mean must be 1 number, or 3"),
        ({"std": [0.0]}, "std must be above 0"),
        ({"interpolation": "cubic"}, "Invalid enum value 'cubic'"),
        ({"channels": "gray", "crop": 224}, r"an image in gray has the shape \[1, height, width\]"),
        ({"sizes": 3}, "unknown field `sizes`"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path: Path, recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read(tmp_path, [{**IMAGE, "decode": recipe}])


def test_a_recipe_fits_its_input() -> None:
    for datatype, shape, message in (
        ("INT64", (3, 8, 8), "an image is one of"),
        ("FP32", (4, 8, 8), "an image in rgb has the shape"),
        ("UINT8", (3, 8, 8), "set scale = 1.0, and no mean or std"),
    ):
        with pytest.raises(PackageError, match=message):
            TensorSpec(name="x", datatype=datatype, shape=shape, decode=ImageDecode())
    assert IMAGENET.plane((224, 224, 3)) == (224, 224)
    assert IMAGENET.channel_axis((-1, -1, 3)) == 2


def test_outputs_are_not_made_of_images(tmp_path: Path) -> None:
    output = {**IMAGE, "decode": {"crop": 224}}
    with pytest.raises(PackageError, match="only inputs are made of images"):
        read(tmp_path, [IMAGE], outputs=[output])


def test_a_tokenizer_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    table = {"file": "tokenizer.json", "ids": "input_ids", "attention_mask": "attention_mask", "max_length": 128}
    package = read(tmp_path, IDS, tokenizer=table, files={"tokenizer.json": SUM})
    found = package.manifest.tokenizer
    assert isinstance(found, Tokenizer)
    assert found.inputs == ("input_ids", "attention_mask")
    assert found.limit(package.manifest.inputs) == 128
    package.verify()
    write_manifest(tmp_path, package.manifest)
    assert read_package(tmp_path).manifest == package.manifest


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"file": "other.json", "ids": "input_ids"}, "'other.json', whose checksum is missing from"),
        ({"file": "tokenizer.json", "ids": "ids"}, "names 'ids', but the inputs are input_ids, attention_mask"),
        ({"file": "tokenizer.json", "ids": ""}, "needs ids"),
        ({"file": "tokenizer.json", "ids": "input_ids", "attention_mask": "input_ids"}, "one input twice"),
        ({"file": "tokenizer.json", "ids": "input_ids", "max_length": -1}, "max_length and pad_id of at least 0"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read(tmp_path, IDS, tokenizer=table, files={"tokenizer.json": SUM})


def test_token_ids_fit_into_their_inputs() -> None:
    recipe = Tokenizer(file="t", ids="a", attention_mask="b", max_length=9)
    for first, second, message in (
        (("FP32", (-1,)), ("INT64", (-1,)), "must be INT32 or INT64"),
        (("INT64", (8,)), ("INT64", (9,)), "differ in their number of tokens"),
        (("INT64", (8,)), ("INT64", (8,)), "max_length is 9, but 'a' takes 8 tokens"),
    ):
        kinds = zip("ab", (first, second), strict=True)
        inputs = [TensorSpec(name=name, datatype=kind, shape=shape) for name, (kind, shape) in kinds]
        with pytest.raises(PackageError, match=message):
            recipe.check(inputs)


def test_a_damaged_tokenizer_is_found_by_its_checksum(tmp_path: Path) -> None:
    table = {"file": "tokenizer.json", "ids": "input_ids"}
    package = read(tmp_path, IDS, tokenizer=table, files={"tokenizer.json": SUM})
    (tmp_path / "tokenizer.json").write_bytes(b"y")
    with pytest.raises(PackageError, match=r"tokenizer\.json does not match its checksum"):
        package.verify()


def test_manifests_with_recipes_are_values() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(3, 224, 224), decode=IMAGENET)
    made = Manifest(name="m", version="1", runtime="r", file="f", sha256=SUM, inputs=(spec,), outputs=(spec,))
    assert made == msgspec.convert(msgspec.to_builtins(made), Manifest)
    assert hash(spec) == hash(msgspec.structs.replace(spec))
