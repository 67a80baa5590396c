"""Images for the tests, made here, and their preparation written a second time."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: EXIF orientation → how the upright image becomes the one that is stored under it.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture(width: int = 60, height: int = 45) -> Image.Image:
    """Return an image with edges and gradients, of which no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 120 * np.sin(x / 3) * np.cos(y / 4)
    pixels = np.stack([red, green, blue], axis=-1)
    pixels[: height // 4, : width // 5] = (250, 20, 20)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(upright: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    """Return a file that viewers show upright, though its pixels are stored otherwise."""
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, kind, exif=exif)


def reference(image: Image.Image, resize: int, crop: int) -> NDArray[np.float64]:
    """Return what Resize, CenterCrop and ToTensor make of an RGB image, computed in full precision: [3, crop, crop]."""
    pixels = np.asarray(image, np.float64)
    height, width = pixels.shape[:2]
    short = min(height, width)
    new_height, new_width = (int(resize * side / short) if side != short else resize for side in (height, width))
    rows, columns = _triangle(height, new_height), _triangle(width, new_width)
    resized = np.einsum("ih,hwc,jw->ijc", rows, pixels, columns)
    top, left = round((new_height - crop) / 2.0), round((new_width - crop) / 2.0)
    cropped: NDArray[np.float64] = (resized[top : top + crop, left : left + crop] / 255.0).transpose(2, 0, 1)
    return cropped


def _triangle(old: int, new: int) -> NDArray[np.float64]:
    """Return the weights of a linear filter that is as wide as the reduction, [new, old]."""
    scale = old / new
    support = max(scale, 1.0)
    weights = np.zeros((new, old))
    for index in range(new):
        centre = (index + 0.5) * scale
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), old)
        for source in range(low, high):
            weights[index, source] = max(1 - abs((source + 0.5 - centre) / support), 0)
        weights[index] /= math.fsum(weights[index])
    return weights
