"""Recipes that a package gets for bulk jobs: how its inputs are made of images and of text."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.contracts import PackageError
from headrace.contracts.errors import quoted
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.manifest import Manifest, sha256_of
from headrace.contracts.package.text_recipe import Tokenizer

#: What the file of a tokenizer is called in a package.
TOKENIZER_FILE: Final = "tokenizer.json"

#: Names of inputs in models for text, as Hugging Face's exports call them.
_IDS: Final = ("input_ids", "ids", "tokens")
_MASK: Final = ("attention_mask", "mask")
_TYPES: Final = ("token_type_ids", "type_ids")


def with_decoding(manifest: Manifest, recipes: Mapping[str, ImageDecode]) -> Manifest:
    """Return a manifest some of whose inputs are made of images. recipes: by input; "" is the only one.

    Raises PackageError for an input that does not exist, or that a recipe makes no row of.
    """
    names = [spec.name for spec in manifest.inputs]
    chosen = {name or (names[0] if len(names) == 1 else ""): recipe for name, recipe in recipes.items()}
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise PackageError(f"--decode names {quoted(unknown[0])}, but the model's inputs are {', '.join(names)}")
    inputs = tuple(
        msgspec.structs.replace(spec, decode=chosen[spec.name]) if spec.name in chosen else spec
        for spec in manifest.inputs
    )
    return msgspec.structs.replace(manifest, inputs=inputs)


def with_tokenizer(manifest: Manifest, folder: Path, file: Path) -> Manifest:
    """Copy a tokenizer.json into a package's folder and return its manifest with the tokenizer.

    The bound of tokens and the padding are those of the file; the inputs are told by their names. Raises PackageError.
    """
    document = _read(file)
    shutil.copyfile(file, folder / TOKENIZER_FILE)
    recipe = Tokenizer(
        file=TOKENIZER_FILE,
        ids=_input(manifest, _IDS) or _refuse(manifest),
        attention_mask=_input(manifest, _MASK),
        type_ids=_input(manifest, _TYPES),
        max_length=_part(document, "truncation", "max_length", 0),
        pad_id=_part(document, "padding", "pad_id", 0),
    )
    recipe.check(manifest.inputs)
    files = {**manifest.files, TOKENIZER_FILE: sha256_of(folder / TOKENIZER_FILE)}
    return msgspec.structs.replace(manifest, tokenizer=recipe, files=files)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as exc:
        raise PackageError(f"the tokenizer {file} can't be read: {exc}; give a tokenizer.json") from exc
    if "model" not in document:
        raise PackageError(f"{file} is no tokenizer.json: it has no model; tokenizers' Tokenizer.save writes one")
    return document


def _part(document: Mapping[str, Any], table: str, key: str, default: int) -> int:
    found = document.get(table)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, int) and value >= 0 else default


def _input(manifest: Manifest, names: tuple[str, ...]) -> str:
    inputs = [spec.name for spec in manifest.inputs]
    return next((name for name in names if name in inputs), "")


def _refuse(manifest: Manifest) -> str:
    inputs = ", ".join(spec.name for spec in manifest.inputs)
    raise PackageError(
        f"--tokenizer: none of the inputs ({inputs}) is called {' or '.join(_IDS)}; add the model without it and write "
        "[tokenizer] into model.toml"
    )
