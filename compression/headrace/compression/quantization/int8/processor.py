"""The int8 instructions of this machine's processor."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

_X86: Final = frozenset({"x86_64", "amd64", "i386", "i686"})
_CPU_INFO: Final = Path("/proc/cpuinfo")


def needs_narrow_weights() -> bool:
    """Whether weights should have 7 bits on this processor.

    x86 processors without VNNI add two int8 products in 16 bits, which overflows with 8-bit weights. Where the
    processor doesn't say, it is taken to have VNNI, as those made since 2020 do: 7 bits cost accuracy everywhere.
    """
    if platform.machine().lower() not in _X86 or not _CPU_INFO.is_file():
        return False
    return "vnni" not in _CPU_INFO.read_text("utf-8", errors="replace")
