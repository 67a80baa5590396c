"""Pixels as numbers of an input: scaled, normalized, in the order of dimensions of its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.datatypes import dtype_of


class Pixels:
    """The arithmetic of one input: that of torchvision's `ToTensor` and `Normalize`, in FP32."""

    def __init__(self, spec: TensorSpec, recipe: ImageDecode) -> None:
        """spec: the input, whose shape fits the recipe."""
        self._dtype = dtype_of(spec.datatype)
        self._axis = recipe.channel_axis(spec.shape)
        self._bgr = recipe.channels == "bgr"
        # Division by 255 rounds otherwise than multiplication by its inverse, and is what training does.
        inverse = 1 / recipe.scale
        self._divisor = np.float32(round(inverse)) if abs(inverse - round(inverse)) < 1e-6 else None
        self._scale = np.float32(recipe.scale)
        self._mean = self._per_channel(recipe.mean) if any(recipe.mean) else None
        self._std = self._per_channel(recipe.std) if any(each != 1 for each in recipe.std) else None

    def _per_channel(self, numbers: tuple[float, ...]) -> NDArray[np.float32]:
        array = np.array(numbers, np.float32)
        return array.reshape(-1, 1, 1) if self._axis == 0 and len(array) > 1 else array

    def of(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of an image in the order of the input's dimensions."""
        array = np.asarray(image)
        if self._bgr:
            array = array[..., ::-1]
        if self._axis is None:
            return array
        if array.ndim == 2:
            array = array[..., None]
        return array.transpose(2, 0, 1) if self._axis == 0 else array

    def normalized(self, images: Sequence[NDArray[np.uint8]], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return images of one shape as numbers of the input, in one array."""
        if self._dtype == np.uint8:
            return np.stack(images) if images else np.empty((0, *shape), np.uint8)
        rows = np.empty((len(images), *shape), np.float32)
        # One image at a time: it stays in the processor's cache for all steps.
        for row, image in zip(rows, images, strict=True):
            self._normalize(image, row)
        return rows if self._dtype == np.float32 else rows.astype(self._dtype)

    def _normalize(self, image: NDArray[np.uint8], row: NDArray[np.float32]) -> None:
        if self._divisor is None:
            np.multiply(image, self._scale, out=row)
        else:
            np.divide(image, self._divisor, out=row)
        if self._mean is not None:
            row -= self._mean
        if self._std is not None:
            row /= self._std
