"""A column of images as one input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.feeds import FedRows, placed
from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.images.opening import ImageRefused, open_image, set_up_pillow
from headrace.bulk.columns.images.pixels import Pixels
from headrace.bulk.columns.images.sizing import sized
from headrace.bulk.columns.kinds import is_binary, is_text, plain
from headrace.contracts.errors import HeadraceError, quoted
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors

#: Decoded images of one table take no more than this, 64 MiB.
_TABLE_BYTES: Final = 64 << 20

#: Rows of a table of images whose size is known only when they are opened.
_ROWS_OF_ANY_SIZE: Final = 64

ReadBytes = Callable[[str], bytes]


class _Lost(msgspec.Struct, frozen=True):
    """Why an image can't be used."""

    type: str
    message: str


class ImageFeed:
    """Opens images, in threads, and makes an input of them. Images are kept as bytes until rows are taken."""

    def __init__(self, column: str, spec: TensorSpec, recipe: ImageDecode, read_bytes: ReadBytes, threads: int) -> None:
        """read_bytes: reads the file of a path in the column; raises HeadraceError."""
        self.columns = (column,)
        self.float_columns = ()
        self._column = column
        self._spec = spec
        self._recipe = recipe
        self._pixels = Pixels(spec, recipe)
        self._read_bytes = read_bytes
        self._threads = threads
        self._mode = "L" if recipe.channels == "gray" else "RGB"
        self._size = recipe.plane(spec.shape)
        set_up_pillow()

    @property
    def rows_at_once(self) -> int:
        """Most rows whose pixels are held at once."""
        if self._spec.varies:
            return _ROWS_OF_ANY_SIZE
        return max(_TABLE_BYTES // max(int(np.prod(self._spec.shape)), 1), 1)

    def feed(self, table: pa.RecordBatch, findings: Findings) -> FedRows:
        """Open all images of a table."""
        cells = self._cells(plain(table.column(self._column)))
        findings.nulls(np.array([at for at, cell in enumerate(cells) if cell is None], np.int64), self._what)
        wanted = [(at, cell) for at, cell in enumerate(cells) if cell is not None and at not in findings.refused]
        images: dict[int, NDArray[np.uint8]] = {}
        with _mapper(self._threads) as mapped:
            for (at, cell), found in zip(wanted, mapped(self._opened, [cell for _, cell in wanted]), strict=True):
                if isinstance(found, _Lost):
                    path = f" ({quoted(cell)})" if isinstance(cell, str) else ""
                    message = f"{self._what}{path}: {found.message}"
                    findings.refuse([at], found.type, message, stage="decode")
                else:
                    images[at] = found
        return ImageRows(self._spec, self._pixels, images, len(cells))

    @property
    def _what(self) -> str:
        return f"column {self._column!r}"

    def _cells(self, array: pa.Array) -> list[bytes | str | None]:
        """Return the images of all rows: bytes, or a path."""
        if is_binary(array.type) or is_text(array.type):
            return [cell if cell != "" else None for cell in array.to_pylist()]
        if not pa.types.is_struct(array.type):
            return [None] * len(array)
        cells = array.to_pylist()
        return [cell and (cell["bytes"] if cell["bytes"] is not None else cell.get("path")) for cell in cells]

    def _opened(self, cell: bytes | str) -> NDArray[np.uint8] | _Lost:
        try:
            data = self._read_bytes(cell) if isinstance(cell, str) else cell
            image = sized(open_image(data, self._mode, exif=self._recipe.exif), self._recipe)
        except ImageRefused as exc:
            return _Lost("BadImage", str(exc))
        except HeadraceError as exc:
            if exc.retriable:
                raise
            return _Lost(exc.type, exc.message)
        if any(want not in (-1, have) for want, have in zip(self._size, (image.height, image.width), strict=True)):
            height, width = self._size
            message = f"the image is {image.height} by {image.width}, but the model takes {height} by {width} pixels"
            return _Lost("WrongShape", message)
        return self._pixels.of(image)


class ImageRows:
    """The images of a table."""

    lengths = None

    def __init__(self, spec: TensorSpec, pixels: Pixels, images: dict[int, NDArray[np.uint8]], rows: int) -> None:
        """images: by their rows; others were refused."""
        self._spec = spec
        self._pixels = pixels
        self._images = images
        self.dims: NDArray[np.int64] | None = None
        self.symbols = spec.symbols
        if spec.varies:
            self.dims = np.zeros((rows, len(spec.shape)), np.int64)
            for at, image in images.items():
                self.dims[at] = image.shape

    def take(self, rows: NDArray[np.int64]) -> Tensors:
        """Return the input of some rows. Raises ValueError when the sizes of images differ."""
        found = [self._images[at] for at in rows.tolist()]
        shape = found[0].shape if found else tuple(max(size, 0) for size in self._spec.shape)
        if any(image.shape != shape for image in found):
            raise ValueError(f"images of {self._spec.name} have different sizes and can't share a batch")
        return {self._spec.name: placed(self._spec, self._pixels.normalized(found, shape))}


@contextmanager
def _mapper(threads: int) -> Iterator[Any]:
    """Yield a `map` that runs in a number of threads."""
    if threads <= 1:
        yield map
        return
    with ThreadPoolExecutor(threads, "headrace-images") as pool:
        yield pool.map
