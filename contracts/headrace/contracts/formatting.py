"""Numbers and errors of other libraries, written for people."""

from __future__ import annotations


def first_line(exc: Exception) -> str:
    """Return the first line of an error's text, or its class name if it has none; some libraries append call stacks."""
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__


def sized(count: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
