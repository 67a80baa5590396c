"""How much memory workers take: bounded, however long a server is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import psutil
from tests.chaos.worker_slot import WorkerSlot

#: How often the workers are looked at; three reads from /proc each time.
LOOK_S: Final = 0.25

#: Looked at first when a worker has been ready for so many looks: by then its models are loaded and warm.
WARM_LOOKS: Final = 8


class MemoryWatch:
    """Notes the resident memory of workers in a thread of its own, while it is used as a context manager.

    most_bytes: of any worker at any time. grown_bytes: most that any worker had more than when it was new and warm.
    """

    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self.most_bytes = 0
        self.grown_bytes = 0
        self._slots = slots
        self._looks: dict[int, int] = {}
        self._first_bytes: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            for slot in self._slots:
                if (pid := slot.pid) is not None:
                    self._look_at(pid)

    def _look_at(self, pid: int) -> None:
        try:
            now_bytes: int = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return  # it has just been killed
        self.most_bytes = max(self.most_bytes, now_bytes)
        looks = self._looks[pid] = self._looks.get(pid, 0) + 1
        if looks >= WARM_LOOKS:
            first_bytes = self._first_bytes.setdefault(pid, now_bytes)
            self.grown_bytes = max(self.grown_bytes, now_bytes - first_bytes)
