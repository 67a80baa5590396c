"""The tie between a process and its parent, and signals that a main thread waits for."""

from __future__ import annotations

import os
import signal as signals
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals
from types import FrameType
from typing import Final

#: From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent_pid: int, signal: Signals) -> bool:
    """Ask the kernel to send this process a signal when its parent ends, even by SIGKILL; on Linux only.

    More exactly, when the thread that started it ends. Returns whether the parent still lives: if not, it ended before
    the kernel was asked, and no signal will come.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    return os.getppid() == parent_pid


@contextmanager
def signal_pipe(*numbers: Signals) -> Iterator[tuple[int, int]]:
    """Yield the ends of a pipe, to read and to write: within, each of these signals writes its number as one byte.

    The main thread must call this. Other threads may write bytes of their own.
    """
    reading, writing = os.pipe()

    def on_signal(number: int, _: FrameType | None) -> None:
        # Nothing here may take a lock, as Event.set does: another signal can interrupt this very function.
        os.write(writing, bytes([number]))

    previous = {number: signals.signal(number, on_signal) for number in numbers}
    try:
        yield reading, writing
    finally:
        for number, handler in previous.items():
            signals.signal(number, handler)
        os.close(reading)
        os.close(writing)
