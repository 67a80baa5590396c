"""The tie between a process and its parent."""

from __future__ import annotations

import os
import sys
from signal import Signals
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
