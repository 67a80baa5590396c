"""Flat Arrow arrays become arrays of a model's datatype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.bulk.columns.kinds import is_text
from headrace.bulk.columns.values.cells import parse_numbers
from headrace.bulk.columns.values.narrowing import Cast, narrowed
from headrace.contracts.tensors.datatypes import dtype_of


def cast(values: pa.Array, datatype: str) -> Cast:
    """Return the values as a datatype, without a copy where they have it already; a null becomes a zero."""
    if datatype == "BYTES":
        return Cast(_to_bytes(values))
    dtype = dtype_of(datatype)
    if pa.types.is_null(values.type):
        return Cast(np.zeros(len(values), dtype))
    if is_text(values.type):
        return parse_numbers(values, datatype)
    if pa.types.is_decimal(values.type):
        values = pc.cast(values, pa.float64())
    if values.null_count:
        values = values.fill_null(pa.scalar(0).cast(values.type))
    return narrowed(values.to_numpy(zero_copy_only=False), dtype)


def _to_bytes(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_null(values.type):
        return np.full(len(values), b"", object)
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    binary = values.cast(pa.large_binary() if wide else pa.binary())
    if binary.null_count:
        binary = binary.fill_null(b"")
    array: NDArray[Any] = binary.to_numpy(zero_copy_only=False)
    return array
