"""The task that an image classifier is built for, and how a family made for 224 pixels is fitted to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: What the families of the papers shrink an image by, from 224 to 7 pixels.
_FULL_STRIDE: Final = 32

#: The last feature map keeps at least this many pixels a side, if the image has them.
_LEAST_MAP: Final = 4


@dataclass(frozen=True)
class ImageTask:
    """Images [rows, channels, height, width] into `classes` classes."""

    channels: int
    height: int
    width: int
    classes: int

    @property
    def halvings_left_out(self) -> int:
        """The number of the five halvings of a family that images this small leave out.

        The first ones are left out, as is usual for 32-pixel images: 0 from 128 pixels on, 2 for 32, 5 for 4.
        """
        left_out = 0
        while left_out < 5 and min(self.height, self.width) / (_FULL_STRIDE >> left_out) < _LEAST_MAP:
            left_out += 1
        return left_out


class Halvings:
    """The strides of a family's halvings in turn: 1 for those that are left out, then 2."""

    def __init__(self, task: ImageTask) -> None:
        """task: that the family is fitted to."""
        self._left_out = task.halvings_left_out

    def next(self) -> int:
        """Return the stride of the next halving."""
        if self._left_out:
            self._left_out -= 1
            return 1
        return 2
