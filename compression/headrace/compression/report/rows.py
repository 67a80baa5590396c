"""A row of the data as a small image or a line of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.reporting.pages import image_address

#: Images are shown up to this many pixels a side; a page of larger ones would be slow.
_LARGEST_SIDE: Final = 64

#: Smallest side of an image: a row of features with one dimension more is none.
_LEAST_SIDE: Final = 4

#: Limits of shown text and numbers.
_LETTERS: Final = 120
_NUMBERS: Final = 8


@dataclass(frozen=True)
class Shown:
    """An input of a row. image: the address of an image within the page. text: its size, or the input itself."""

    text: str
    image: str = ""
    quoted: bool = False


def show_row(rows: Dataset, row: int) -> list[Shown]:
    """Return the inputs of one row that can be shown: small images, text, and few numbers."""
    shown = [_show(np.asarray(array[row], array.dtype)) for array in rows.inputs.values()]
    return [each for each in shown if each is not None]


def _show(value: NDArray[Any]) -> Shown | None:
    pixels = _pixels(value)
    if pixels is not None:
        height, width = pixels.shape[:2]
        return Shown(f"{width} by {height} pixels", image_address(pixels))
    flat = np.asarray(value).reshape(-1)
    if flat.dtype.kind in "OSUT":
        text = " ".join(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in flat[:8])
        return Shown(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…", quoted=True)
    if flat.dtype.kind == "V" or flat.size > _NUMBERS:
        return None
    return Shown(", ".join(f"{number:.4g}" for number in flat.tolist()))


def _pixels(value: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return a row as pixels, [height, width] or [height, width, 3], the least value black; None if it is no image."""
    if value.dtype.kind not in "biuf":
        return None
    if value.ndim == 3 and value.shape[0] in {1, 3}:
        value = np.moveaxis(value, 0, -1)
    if value.ndim == 3 and value.shape[-1] == 1:
        value = value[..., 0]
    image = value.ndim == 2 or (value.ndim == 3 and value.shape[-1] == 3)
    if not image or not all(_LEAST_SIDE <= side <= _LARGEST_SIDE for side in value.shape[:2]):
        return None
    numbers = np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    return np.round((numbers - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
