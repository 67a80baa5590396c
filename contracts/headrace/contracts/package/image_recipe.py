"""`[inputs.decode]` of a package: how an encoded image becomes a row of an input."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.contracts.errors import PackageError

#: Height and width in pixels, of which neither may be -1.
Size: TypeAlias = tuple[int, int]

#: Larger sides are a mistake, and would take all memory.
_MOST_PIXELS: Final = 16_384

#: Datatypes that hold pixels.
_DATATYPES: Final = frozenset({"UINT8", "FP16", "FP32", "FP64", "BF16"})

_CHANNELS: Final = {"rgb": 3, "bgr": 3, "gray": 1}


class ImageDecode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps from an image file to a row; those of torchvision's Resize, CenterCrop, ToTensor and Normalize.

    exif: turn the image as its EXIF orientation says. channels: what it is converted to. resize: length of the
    shorter side, or [height, width], whatever the image's own proportions; 0: it isn't resized. interpolation: of
    Pillow, always antialiased. crop: side of the centred square, or [height, width], that is cut out; black is added
    where the image is smaller; 0: nothing is cut. scale: multiplies each value. mean, std: then subtracted and divided
    by, one number for each channel or one for all. The order of dimensions is that of the input's shape:
    [3, 224, 224] or [224, 224, 3], or [28, 28] for gray.
    """

    resize: int | Size = 0
    crop: int | Size = 0
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    channels: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    exif: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes and numbers that no image can have."""
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            sides = size if isinstance(size, tuple) else (size,) if size else ()
            if any(not 1 <= side <= _MOST_PIXELS for side in sides):
                raise PackageError(f"[inputs.decode] {name} must be 1 to {_MOST_PIXELS}, or [height, width] of such")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise PackageError("[inputs.decode] scale must be a number above 0, such as 0.00392156862745098 for 1/255")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in {0, 1, self.depth} or not all(map(math.isfinite, numbers)):
                raise PackageError(f"[inputs.decode] {name} must be 1 number, or {self.depth}: one for each channel")
        if any(number <= 0 for number in self.std):
            raise PackageError("[inputs.decode] std must be above 0")

    @property
    def depth(self) -> int:
        """The number of channels."""
        return _CHANNELS[self.channels]

    @property
    def size(self) -> Size | None:
        """Height and width of the result; None if it depends on the image."""
        if self.crop:
            return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)
        return self.resize if isinstance(self.resize, tuple) else None

    def channel_axis(self, shape: tuple[int, ...]) -> int | None:
        """Return which dimension of a row's shape is that of the channels; None if it has none.

        Raises PackageError when the shape is none of an image with these channels.
        """
        if len(shape) == 2 and self.depth == 1:
            return None
        if len(shape) == 3:
            for axis in (0, 2):
                if shape[axis] == self.depth:
                    return axis
        wanted = "[1, height, width], [height, width, 1] or [height, width]" if self.depth == 1 else (
            "[3, height, width] or [height, width, 3]"
        )  # fmt: skip
        raise PackageError(f"an image in {self.channels} has the shape {wanted}, but the input's is {list(shape)}")

    def plane(self, shape: tuple[int, ...]) -> Size:
        """Return height and width in a row's shape; -1 varies. Raises PackageError as `channel_axis` does."""
        axis = self.channel_axis(shape)
        height, width = (size for index, size in enumerate(shape) if index != axis)
        return height, width

    def check(self, datatype: str, shape: tuple[int, ...]) -> None:
        """Refuse an input that this recipe makes no row of. Raises PackageError."""
        if datatype not in _DATATYPES:
            raise PackageError(f"an image is one of {', '.join(sorted(_DATATYPES))}, not {datatype}")
        plane = self.plane(shape)
        if self.size and any(want not in (-1, have) for want, have in zip(plane, self.size, strict=True)):
            raise PackageError(
                f"it gives {self.size[0]} by {self.size[1]} pixels, but the input takes {plane[0]} by {plane[1]}: "
                "set crop, or resize = [height, width]"
            )
        if datatype == "UINT8" and (self.scale != 1 or self.mean or self.std):
            raise PackageError("a UINT8 input holds pixels as they are: set scale = 1.0, and no mean or std")


#: The preparation of most classifiers that were trained on ImageNet.
IMAGENET: Final = ImageDecode(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
