"""How numbers and other people's errors are written for a person."""

from __future__ import annotations


def first_line(exc: Exception) -> str:
    """Give what an error says first, or its class when it says nothing; libraries add pages of their own call stack."""
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__


def sized(count: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
