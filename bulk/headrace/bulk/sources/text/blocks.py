"""Bytes of a text file, block by block, unpacked where it is compressed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, Final

import pyarrow as pa

#: The first block is small: often only the first lines are wanted.
FIRST_BLOCK_BYTES: Final = 64 << 10

#: Large enough that what is done once for each block costs little; several blocks are held at a time.
BLOCK_BYTES: Final = 1 << 20

#: Smaller than blocks, because what was unpacked last is lost when the archive ends too early.
_UNPACKED_BYTES: Final = 64 << 10

_COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}


def compression_of(uri: str) -> str:
    """Return how a file is compressed, by its name: "gzip", "zstd" or ""."""
    return next((name for suffix, name in _COMPRESSIONS.items() if uri.lower().endswith(suffix)), "")


def without_compression(uri: str) -> str:
    """Return a name without the suffix of its compression."""
    return uri.rpartition(".")[0] if compression_of(uri) else uri


def blocks(raw: BinaryIO, uri: str, start: int = 0, stop: int = -1) -> Iterator[bytes]:
    """Yield the bytes of a file. start, stop: range of bytes, -1 is the end; ignored when the file is compressed."""
    compression = compression_of(uri)
    if compression:
        raw.seek(0)
        yield from _unpacked(raw, compression)
        return
    raw.seek(start)
    size = FIRST_BLOCK_BYTES
    while stop < 0 or start < stop:
        block = raw.read(size if stop < 0 else min(size, stop - start))
        if not block:
            return
        yield block
        start += len(block)
        size = BLOCK_BYTES


class _Borrowed(io.RawIOBase):
    """A file that stays open when pyarrow closes it."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._raw.read(size)


def _unpacked(raw: BinaryIO, compression: str) -> Iterator[bytes]:
    """Yield what an archive holds; of one that is damaged, all before the damage first."""
    stream = pa.CompressedInputStream(pa.PythonFile(_Borrowed(raw), mode="r"), compression)
    gathered: list[bytes] = []
    wanted, damage = FIRST_BLOCK_BYTES, None
    while damage is None:
        try:
            block = stream.read(_UNPACKED_BYTES)
        except OSError as exc:
            damage, block = exc, b""
        if not block:
            break
        gathered.append(block)
        if len(gathered) * _UNPACKED_BYTES >= wanted:
            yield b"".join(gathered)
            gathered, wanted = [], BLOCK_BYTES
    yield b"".join(gathered)
    if damage is not None:
        raise damage
