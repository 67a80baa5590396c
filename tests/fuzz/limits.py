"""What one input may cost."""

from __future__ import annotations

import resource
from typing import Final

#: No input may need more address space than this (4 GiB, libraries and fuzzer included) or more time.
MEMORY_BYTES: Final = 4 << 30
INPUT_S: Final = 5


def limit_memory() -> None:
    """Let this process fail with MemoryError where it would take more than MEMORY_BYTES."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
