"""More images out of those there are: shifted copies, for a teacher to label."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset

#: Copies move by up to this share of the image, but by one pixel at least.
_SHIFT: Final = 1 / 14

#: Smaller than this is no image that could be shifted.
_LEAST_SIDE: Final = 4


def augmented(dataset: Dataset, copies: int, seed: int) -> Dataset | None:
    """Return `copies` of each row without labels, its images shifted by a pixel or a few; None if it has no images.

    Inputs of floats [rows, channels, height, width] with one or three channels are images; the others stay as they are.
    """
    images = [name for name, array in dataset.inputs.items() if _are_images(array)]
    if not images or not copies or not len(dataset):
        return None
    random = np.random.default_rng(seed)
    parts = [
        {name: _shifted(array, random) if name in images else array for name, array in dataset.inputs.items()}
        for _ in range(copies)
    ]
    return Dataset({name: np.concatenate([part[name] for part in parts]) for name in dataset.inputs})


def _are_images(array: NDArray[Any]) -> bool:
    return (
        array.dtype.kind == "f" and array.ndim == 4 and array.shape[1] in {1, 3} and min(array.shape[2:]) >= _LEAST_SIDE
    )


def _shifted(images: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Shift each image by a number of pixels of its own, never by none; what comes in repeats the edge."""
    far = [max(1, round(side * _SHIFT)) for side in images.shape[2:]]
    padded = np.pad(images, ((0, 0), (0, 0), *((most, most) for most in far)), mode="edge")
    height, width = images.shape[2:]
    moved = np.empty_like(images)
    places = [(y, x) for y in range(2 * far[0] + 1) for x in range(2 * far[1] + 1) if (y, x) != tuple(far)]
    for row, at in enumerate(random.integers(0, len(places), len(images))):
        y, x = places[at]
        moved[row] = padded[row, :, y : y + height, x : x + width]
    return moved
