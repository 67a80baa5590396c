"""Comparison of an export's outputs with those of its source."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import CompressionError
from headrace.contracts import Tensors
from headrace.contracts.package.agreement import is_tie


def check_parity(expected: Tensors, found: Tensors, tolerance: float, what: str) -> None:
    """Compare every output of a source and of its export, on the same rows.

    Floats may differ by `tolerance` × (1 + the largest absolute value of that output). Others must be equal, but for
    labels whose scores tie: where an output is everywhere the argmax of another, the two labels may differ if their
    scores are within the tolerance. what: the export, for the message.
    Raises CompressionError naming the output and the largest difference.
    """
    for name, want in expected.items():
        have = found[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise CompressionError(
                f"{what} gives output {name!r} as {have.dtype} {list(have.shape)}, its source as {want.dtype} "
                f"{list(want.shape)}; nothing was kept of it"
            )
        if _is_float(want):
            _check_floats(name, want, have, tolerance, what)
        elif not np.array_equal(want, have) and not is_tie(
            want, have, expected, lambda scores: tolerance * (1 + float(np.abs(scores).max()))
        ):
            share = float((want != have).mean())
            raise CompressionError(
                f"{what} differs from its source in output {name!r}: {share:.1%} of the values are others, and their "
                "scores don't tie; nothing was kept of it"
            )


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _check_floats(name: str, want: NDArray[Any], have: NDArray[Any], tolerance: float, what: str) -> None:
    source, export = want.astype(np.float64), have.astype(np.float64)
    finite = np.isfinite(source)
    # NaN and infinity must be where they were, and the same.
    if not np.array_equal(source[~finite], export[~finite], equal_nan=True):
        raise CompressionError(
            f"{what} differs from its source in output {name!r}: NaN or infinity is not where it was; keep more "
            "precision, or export the model another way"
        )
    allowed = tolerance * (1 + np.abs(source[finite]).max(initial=0))
    difference = np.abs(source[finite] - export[finite]).max(initial=0)
    if not difference <= allowed:
        raise CompressionError(
            f"{what} differs from its source in output {name!r}: by {difference:.3g} at most, and {allowed:.3g} are "
            "allowed; nothing was kept of it: allow more with `tolerance` if that is good enough"
        )
