"""The held-out images of the demo, and the versions of the model that score them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.contracts import ModelDirectory, ModelPackage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DATA: Final = Path(__file__).with_name("data")
MODEL: Final = "digits"

#: The version that was trained, and the one that `headrace compress` made of it.
TRAINED: Final = "1"
COMPRESSED: Final = "2"


class ModelVersion(msgspec.Struct, frozen=True):
    """A version of the model, and the accuracy on the held-out images that its package states.

    title: fp32 or int8. stated: images it got right when it was measured. least, most: limits of that number here.
    recipe: of its compression, "" if there was none. size_bytes: of its files.
    """

    version: str
    title: str
    stated: int
    least: int
    most: int
    recipe: str
    size_bytes: int


class Digits(msgspec.Struct, frozen=True):
    """The held-out images. pixels: uint8 [rows, 8, 8] in 0..16. inputs: FP32 [rows, 1, 8, 8] in 0..1. labels: [rows].

    versions: the versions of the model, the trained one first.
    """

    pixels: NDArray[np.uint8]
    inputs: NDArray[np.float32]
    labels: list[int]
    versions: tuple[ModelVersion, ...]


def held_out() -> Digits:
    """Read the images that the model was not trained on. Raises PackageError when a package is damaged."""
    import numpy as np

    models = ModelDirectory(DATA / "models")
    trained, compressed = models.get(MODEL, TRAINED), models.get(MODEL, COMPRESSED)
    for package in (trained, compressed):
        package.verify()
    train_rows = trained.manifest.provenance["train_rows"]
    with np.load(DATA / "digits.npz") as file:
        pixels, labels = file["images"][train_rows:], file["labels"][train_rows:]
    inputs = (pixels.astype(np.float32) / np.float32(16))[:, None]
    first = as_trained(trained)
    return Digits(pixels, inputs, labels.tolist(), (first, as_compressed(compressed, first, len(labels))))


def as_trained(package: ModelPackage) -> ModelVersion:
    """Read what a package states that `examples/digits/train.py` wrote: the same hits on every CPU."""
    hits = package.manifest.provenance["accuracy_hits"]
    return ModelVersion(package.version, "fp32", hits, hits, hits, "", package.size_bytes)


def as_compressed(package: ModelPackage, original: ModelVersion, rows: int) -> ModelVersion:
    """Read what a package states that `headrace compress` wrote.

    Int8 is rounded differently on other CPUs, so that the hits may differ by a few; what was lost may not be more than
    the bound under which the package was promoted. rows: how many images were held out.
    """
    record = package.manifest.provenance["compression"]
    stated = round(record["test"]["value"] * record["test"]["rows"])
    least = math.ceil(original.stated - record["max_drop"] * rows)
    return ModelVersion(package.version, "int8", stated, least, rows, record["recipe"], package.size_bytes)
