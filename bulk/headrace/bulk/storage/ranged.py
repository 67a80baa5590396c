"""An object read by ranges, with some read-ahead where it is read in sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from headrace.bulk.storage.reading import ReadAt

#: Returns the bytes from a position to before another.
Fetch: TypeAlias = Callable[[int, int], memoryview]

#: What is fetched at least: a footer of Parquet.
SMALLEST: Final = 64 << 10

#: What is fetched at most where less is asked for: what a slice reads beyond its end is read again by the next.
LARGEST_AHEAD: Final = 1 << 20

#: What one request fetches at most, so that a slow connection still answers in time.
LARGEST: Final = 16 << 20


class RangedFile(ReadAt):
    """An object of which ranges are fetched."""

    def __init__(self, uri: str, size: int, fetch: Fetch, release: Callable[[], object] | None = None) -> None:
        """fetch: raises InputChanged when the object is another one by now. release: is called at the end."""
        super().__init__(uri, size)
        self._fetch = fetch
        self._release = release
        self._start = 0
        self._window = memoryview(b"")
        self._ahead = SMALLEST
        self._expected = -1

    def read_at(self, position: int, view: memoryview) -> int:
        """Fill some of a view from what was fetched, or fetch."""
        offset = position - self._start
        if not 0 <= offset < len(self._window):
            # One that goes on where the last one ended is in sequence, even if it was too large to be kept.
            self._ahead = min(2 * self._ahead, LARGEST_AHEAD) if position == self._expected else SMALLEST
            ahead = min(self._ahead, max(self.limit - position, SMALLEST))
            wanted = min(max(len(view), ahead), LARGEST, self.size - position)
            self._window = self._fetch(position, position + wanted)
            self._start = position
            self._expected = position + wanted
            self.bytes_read += len(self._window)
            offset = 0
        count = min(len(view), len(self._window) - offset)
        view[:count] = self._window[offset : offset + count]
        if offset + count == len(self._window):
            self._window = memoryview(b"")
        return count

    def close(self) -> None:
        """Let go of what was fetched."""
        self._window = memoryview(b"")
        release, self._release = self._release, None
        if release is not None:
            release()
        super().close()
