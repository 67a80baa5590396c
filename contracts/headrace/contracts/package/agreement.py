"""Whether two computations of the same request agree: a row alone and in company, before and after a conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import FLOATS, datatype_of

#: Datatype → the part of the largest value that another order of the same additions changes, with room: matrix products
#: choose their kernel by the number of rows. Measured: FP32 up to 3e-6 over 12 layers of a transformer.
TOLERANCES: Final = {"FP64": 1e-9, "FP32": 1e-4, "FP16": 1e-2, "BF16": 4e-2}

#: Added to the largest value of an output, so that values which cancel to nearly nothing aren't held to their own size.
_FLOOR: Final = 1e-2


def difference(alone: Tensors, together: Tensors) -> str:
    """Return how the second computation of the same outputs differs from the first, in words; "" if they agree.

    Shapes, whole numbers, truth values and strings must be equal, NaN and infinity be in the same places; floats may
    differ by the tolerance of their datatype. A whole number that is everywhere the position of the largest of an
    output's values may differ where two of these are as good as equal.
    """
    for name, want in alone.items():
        have = together[name]
        if have.shape != want.shape:
            return f"output {name!r} has the shape {list(have.shape)} instead of {list(want.shape)}"
        if datatype_of(want.dtype) in FLOATS:
            words = _float_difference(want, have)
        else:
            same = np.array_equal(want, have) or is_tie(want, have, alone, _allowed)
            words = "" if same else f"{float((want != have).mean()):.0%} of its values are others"
        if words:
            return f"output {name!r} differs: {words}"
    return ""


def _float_difference(want: NDArray[Any], have: NDArray[Any]) -> str:
    tolerance = TOLERANCES[datatype_of(want.dtype)]
    one, other = want.astype(np.float64), have.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(other[finite]).all():
        return "NaN or infinity is elsewhere"
    if not finite.any():
        return ""
    largest = float(np.abs(one[finite]).max())
    found = float(np.abs(one[finite] - other[finite]).max())
    return "" if found <= tolerance * (_FLOOR + largest) else f"by {found:.3g}, its values being up to {largest:.3g}"


def _allowed(scores: NDArray[Any]) -> float:
    return TOLERANCES[datatype_of(scores.dtype)] * (_FLOOR + float(np.abs(scores.astype(np.float64)).max()))


def is_tie(want: NDArray[Any], have: NDArray[Any], outputs: Tensors, allowed: Callable[[NDArray[Any]], float]) -> bool:
    """Return whether two arrays of labels differ only where the scores of both labels are as good as equal.

    outputs: those that `want` is one of; it must be the position of the largest value of another. allowed: the largest
    difference of scores that tie.
    """
    if want.dtype.kind not in "iu" or have.min() < 0:
        return False
    for scores in outputs.values():
        if datatype_of(scores.dtype) not in FLOATS or scores.ndim == 0 or scores.shape[:-1] != want.shape:
            continue
        plain = scores.astype(np.float64)
        if have.max() >= plain.shape[-1] or not np.array_equal(plain.argmax(-1), want):
            continue
        best = np.take_along_axis(plain, want[..., None].astype(np.intp), -1)
        other = np.take_along_axis(plain, have[..., None].astype(np.intp), -1)
        return bool((best - other).max() <= allowed(scores))
    return False
