"""Recipes for images and text that `models add` writes into a package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.lifecycle.onnx_text import write

from headrace.contracts import ModelDirectory, PackageError
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.lifecycle.packages.registry import add_model, derive_package, promote

POOL = "g (float[n,3,8,8] image) => (float[n,3,1,1] y) { y = GlobalAveragePool(image) }"
SUM = """g (int64[n,t] input_ids, int64[n,t] attention_mask) => (int64[n,1] y) {
    both = Mul(input_ids, attention_mask)
    axis = Constant<value_ints = [1]>()
    y = ReduceSum(both, axis)
}"""
RECIPE = ImageDecode(resize=(8, 8))


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "models")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    document = {"model": {}, "truncation": {"max_length": 128}, "padding": {"pad_id": 7}}
    path = tmp_path / "my tokenizer.json"
    path.write_text(json.dumps(document))
    return path


def test_an_input_gets_its_recipe_by_name_or_as_the_only_one(models: ModelDirectory, tmp_path: Path) -> None:
    file = write(tmp_path / "cnn.onnx", POOL)
    for name in ("image", ""):
        assert add_model(file, models, decode={name: RECIPE}).manifest.inputs[0].decode == RECIPE


def test_a_recipe_for_no_input_is_refused(models: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="--decode names 'x', but the model's inputs are image"):
        add_model(write(tmp_path / "cnn.onnx", POOL), models, decode={"x": RECIPE})
    assert models.names() == []


def test_a_tokenizer_comes_with_its_bound_and_padding(models: ModelDirectory, tmp_path: Path, tokenizer: Path) -> None:
    package = add_model(write(tmp_path / "text.onnx", SUM), models, tokenizer=tokenizer)
    recipe = package.manifest.tokenizer
    assert recipe
    assert (recipe.file, recipe.ids, recipe.attention_mask, recipe.type_ids) == (
        "tokenizer.json", "input_ids", "attention_mask", ""
    )  # fmt: skip
    assert (recipe.max_length, recipe.pad_id) == (128, 7)
    package.verify()
    assert (package.folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()


def test_derived_and_moved_packages_keep_their_tokenizer(
    models: ModelDirectory, tmp_path: Path, tokenizer: Path
) -> None:
    package = add_model(write(tmp_path / "text.onnx", SUM), models, tokenizer=tokenizer)
    folder = tmp_path / "derived"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(package.file.read_bytes())
    derived = derive_package(package, folder, [folder / "model.onnx"], runtime="onnxruntime", step={"step": "x"})
    derived.verify()
    moved = promote(derived, models)
    moved.verify()
    assert moved.manifest.tokenizer == package.manifest.tokenizer


def test_a_tokenizer_for_a_model_without_token_ids_is_refused(
    models: ModelDirectory, tmp_path: Path, tokenizer: Path
) -> None:
    with pytest.raises(PackageError, match=r"none of the inputs \(image\) is called input_ids"):
        add_model(write(tmp_path / "cnn.onnx", POOL), models, tokenizer=tokenizer)


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}'])
def test_what_is_no_tokenizer_is_refused(models: ModelDirectory, tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(PackageError, match=r"t.json"):
        add_model(write(tmp_path / "text.onnx", SUM), models, tokenizer=tmp_path / "t.json")
