"""Tensors whose bytes `tensorflow_serving.json` has as TensorFlow Serving's own messages write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

#: `tensorflow.DataType` → numpy dtype, field of single values.
KINDS: dict[str, tuple[DTypeLike, str]] = {
    "DT_BOOL": (np.bool_, "bool_val"),
    "DT_UINT8": (np.uint8, "int_val"),
    "DT_UINT16": (np.uint16, "int_val"),
    "DT_UINT32": (np.uint32, "uint32_val"),
    "DT_UINT64": (np.uint64, "uint64_val"),
    "DT_INT8": (np.int8, "int_val"),
    "DT_INT16": (np.int16, "int_val"),
    "DT_INT32": (np.int32, "int_val"),
    "DT_INT64": (np.int64, "int64_val"),
    "DT_HALF": (np.float16, "half_val"),
    "DT_FLOAT": (np.float32, "float_val"),
    "DT_DOUBLE": (np.float64, "double_val"),
    "DT_BFLOAT16": (ml_dtypes.bfloat16, "half_val"),
    "DT_STRING": (object, "string_val"),
}


def tensor(kind: str) -> NDArray[Any]:
    """Return an array of [2, 3] with the extremes of its datatype."""
    dtype = np.dtype(KINDS[kind][0])
    if dtype.kind == "O":
        return np.array([[b"", b"\0\xff", "żółw".encode()], [b"a" * 300, b"b", b"c"]], dtype=object)
    if dtype.kind == "b":
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, 0, 1], [2, 100, limits.max]], dtype)
    return np.array([[np.nan, np.inf, -np.inf], [-0.0, 1.5, -2.25]]).astype(dtype)


def single_values(kind: str) -> Sequence[object]:
    """Return the values of `tensor` as its field holds them."""
    flat = tensor(kind).reshape(-1)
    return flat.view(np.uint16).tolist() if KINDS[kind][1] == "half_val" else flat.tolist()
