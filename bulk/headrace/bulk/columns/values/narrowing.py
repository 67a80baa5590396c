"""Numbers in another dtype, and which of them it can't hold.

Floats round to the precision of the dtype, and so do integers that become floats. Everything else that would change
a value is refused: 1.5 or 300 as UINT8, 1e39 as FP32, 2 as BOOL.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

NONE: Final[NDArray[np.int64]] = np.empty(0, np.int64)


class Cast(msgspec.Struct, frozen=True):
    """Values of a datatype, and the indexes of those that are none; what stands in their place means nothing."""

    values: NDArray[Any]
    bad: NDArray[np.int64] = NONE


def narrowed(raw: NDArray[Any], dtype: np.dtype[Any]) -> Cast:
    """Return numbers in another dtype; those of the same one are not copied."""
    if raw.dtype == dtype:
        return Cast(raw)
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(dtype)
        bad = _lost(raw, values)
    return Cast(values, NONE if bad is None or not bad.any() else np.flatnonzero(bad))


def _lost(raw: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where values were lost; None where none can be."""
    target = values.dtype
    if raw.dtype.kind == "b":
        return None
    if target.kind == "b":
        return np.asarray((raw != 0) & (raw != 1))
    if target.kind in "iu":
        return _beyond(raw, np.iinfo(target))
    if raw.dtype.kind in "iu" and target.itemsize > 2:
        return None
    if raw.dtype.kind == "f" and np.can_cast(raw.dtype, target):
        return None
    wide = values.astype(np.float32) if target.kind == "V" else values
    return np.asarray(np.isinf(wide) & np.isfinite(raw))


def _beyond(raw: NDArray[Any], limits: np.iinfo[Any]) -> NDArray[np.bool_] | None:
    if raw.dtype.kind in "iu":
        have = np.iinfo(raw.dtype)
        if have.min >= limits.min and have.max <= limits.max:
            return None
        return np.asarray((raw < max(limits.min, have.min)) | (raw > min(limits.max, have.max)))
    # The upper limit of 64 bits is no float; the next number is.
    inside = (raw >= float(limits.min)) & (raw < float(limits.max) + 1) & (raw == np.trunc(raw))
    return np.asarray(~inside)
