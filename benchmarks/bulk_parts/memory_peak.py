"""The most memory that a tree of processes has at a time."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil
from benchmarks.online_parts.processes import tree_of

#: How often memory is read; a peak shorter than this may be missed.
EVERY_S = 0.05


class PeakOf:
    """Reads the resident memory of each process of a tree, again and again. mib: the most that one of them had."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.mib = 0.0

    def _read(self) -> None:
        while not self._ended.wait(EVERY_S):
            for process in tree_of(self._root.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.mib = max(self.mib, process.memory_info().rss / 2**20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
