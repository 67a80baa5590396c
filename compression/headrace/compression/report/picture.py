"""A row of the data as a small picture, or as a line of text."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.compression.report.markup import Content, element

#: Pictures are drawn up to this many pixels a side; a page of larger ones would be slow.
_LARGEST_SIDE: Final = 64

#: The least that is a picture: a row of features with one dimension more isn't.
_LEAST_SIDE: Final = 4

#: How much of text and of numbers is shown.
_LETTERS: Final = 120
_NUMBERS: Final = 8


def show_row(rows: Dataset, row: int) -> Content:
    """Show the inputs of one row: small images as such, short rows of numbers and text as text; None for others."""
    shown: list[Content] = [_show(np.asarray(array[row], array.dtype)) for array in rows.inputs.values()]
    found = [content for content in shown if content is not None]
    return element("span", *found, class_="row") if found else None


def _show(value: NDArray[Any]) -> Content:
    pixels = _pixels(value)
    if pixels is not None:
        height, width = pixels.shape[:2]
        data = base64.b64encode(png(pixels)).decode("ascii")
        return element("img", src=f"data:image/png;base64,{data}", alt=f"{width} by {height} pixels", class_="row")
    flat = np.asarray(value).reshape(-1)
    if flat.dtype.kind in "OSUT":
        text = " ".join(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in flat[:8])
        return element("q", text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…")
    if flat.dtype.kind == "V" or flat.size > _NUMBERS:
        return None
    return ", ".join(f"{number:.4g}" for number in flat.tolist())


def _pixels(value: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Give a row as pixels, [height, width] or [height, width, 3], the least value black; None if it is no picture."""
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


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Write pixels, [height, width] grey or [height, width, 3] RGB, as a PNG (ISO/IEC 15948), lines unfiltered."""
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
