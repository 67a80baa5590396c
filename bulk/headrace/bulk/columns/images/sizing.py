"""Resizing and cropping as torchvision's `Resize` and `CenterCrop` do on PIL images (version 0.20 and others)."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageOps

from headrace.contracts.package.image_recipe import ImageDecode, Size

_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def sized(image: Image.Image, recipe: ImageDecode) -> Image.Image:
    """Return an image as the recipe resizes and crops it."""
    if recipe.resize:
        height, width = resized_size((image.height, image.width), recipe.resize)
        if (width, height) != image.size:
            image = image.resize((width, height), _FILTERS[recipe.interpolation])
    if recipe.crop:
        image = centred(image, recipe.crop if isinstance(recipe.crop, tuple) else (recipe.crop, recipe.crop))
    return image


def resized_size(size: Size, target: int | Size) -> Size:
    """Return height and width of a resized image. target: [height, width], or the length of the shorter side."""
    if isinstance(target, tuple):
        return target
    height, width = size
    # The longer side is rounded down, as torchvision does.
    if width <= height:
        return max(int(target * height / width), 1), target
    return target, max(int(target * width / height), 1)


def centred(image: Image.Image, size: Size) -> Image.Image:
    """Return the centre of an image, with black around where the image is smaller."""
    height, width = size
    if width > image.width or height > image.height:
        lack_x, lack_y = max(width - image.width, 0), max(height - image.height, 0)
        image = ImageOps.expand(image, (lack_x // 2, lack_y // 2, (lack_x + 1) // 2, (lack_y + 1) // 2), fill=0)
    # Python rounds halves to the even number, and so does torchvision.
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
