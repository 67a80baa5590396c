"""Encoded images as 8-bit pixels in RGB or gray, turned upright; what can't be opened whole is refused."""

from __future__ import annotations

import functools
import io
import struct
import warnings
from typing import Final

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

#: Formats that are opened. Others of Pillow start programs (EPS), or are no images of a training set.
FORMATS: Final = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "TGA",
    "ICO",
)

#: EXIF's tag of the orientation; 1 is upright.
_ORIENTATION: Final = 0x0112

#: 16-bit values to 8 bits: 65535 is 255 times this.
_STEP: Final = 257

#: What Pillow's decoders raise on broken files, besides OSError. They parse what anybody made.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    Warning,
)


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class ImageRefused(Exception):
    """An image can't be used; the text says why."""


def set_up_pillow() -> None:
    """Refuse truncated images whatever others have set, and silence warnings that would be told for each row."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(data: bytes, mode: str, *, exif: bool) -> Image.Image:
    """Return an image in a mode, RGB or L, wholly decoded. exif: turn it as its EXIF orientation says.

    Raises ImageRefused for what is no image, is truncated, or has more pixels than PIL.Image.MAX_IMAGE_PIXELS.
    """
    if not data:
        raise ImageRefused("the image is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=known_formats())
        _check_pixels(image)
        image.load()
        return _converted(_upright(image) if exif else image, mode)
    except UnidentifiedImageError:
        raise ImageRefused(f"no image of a known format ({data[:4]!r}…)") from None
    except Image.DecompressionBombError:
        raise ImageRefused(_too_large()) from None
    except _BROKEN as exc:
        raise ImageRefused(f"the image is broken or truncated: {exc}") from None


def _check_pixels(image: Image.Image) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ImageRefused(_too_large())


def _too_large() -> str:
    return f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels, which may be an attack on memory"


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        # Its pixels are good though its EXIF data aren't.
        return image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode as `Image.convert` does, which drops transparency; 16 bits are scaled, not cut off."""
    if image.mode == "F":
        raise ImageRefused("the image holds floating-point numbers, whose scale nobody knows; write 8 or 16 bits")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((deep + _STEP // 2) // _STEP, 0, 255).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
