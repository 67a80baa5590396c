"""Kinds of model files that people bring and that are awkward to serve: each small, each legitimate.

Every kind says what a caller sends and whether rows are independent, so that callers must share runs.
"""

from __future__ import annotations

from tests.anymodel.kinds_apart import FIXED, PARAMETERS, ROWS
from tests.anymodel.kinds_mixing import MIXING
from tests.anymodel.kinds_sizes import SIZES
from tests.anymodel.kinds_values import VALUES

APART = [*ROWS, *PARAMETERS, *VALUES]

KINDS = [*MIXING, *APART, *FIXED, *SIZES]

__all__ = ["APART", "FIXED", "KINDS", "MIXING", "SIZES"]
