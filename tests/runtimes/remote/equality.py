"""When a tensor has come back as it went out."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Return whether datatype, shape and bytes are the same: NaN and the sign of zero count."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return False
    if found.dtype == object:
        # Their bytes are addresses.
        return bool(found.tolist() == expected.tolist())
    return found.tobytes() == expected.tobytes()
