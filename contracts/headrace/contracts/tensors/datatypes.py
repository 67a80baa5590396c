"""The datatype names of the Open Inference Protocol v2 and their numpy dtypes.

Source: https://github.com/kserve/open-inference-protocol (section "Tensor Data Types").
"""

from __future__ import annotations

from typing import Final

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace.contracts.errors import SignatureMismatch, quoted

#: OIP v2 name → little-endian numpy dtype. BYTES has no fixed width and is held as an object array of `bytes`.
DTYPES: Final[dict[str, np.dtype]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(object),
}

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}

#: Datatypes that can hold NaN or infinity.
FLOATS: Final = frozenset({"FP16", "FP32", "FP64", "BF16"})


def dtype_of(datatype: str) -> np.dtype:
    """Return the numpy dtype of an OIP v2 datatype name.

    Raises SignatureMismatch for a name that OIP v2 does not have.
    """
    try:
        return DTYPES[datatype]
    except (KeyError, TypeError):
        raise SignatureMismatch(f"datatype {quoted(datatype)} does not exist; use one of {', '.join(DTYPES)}") from None


def datatype_of(dtype: DTypeLike) -> str:
    """Return the OIP v2 name of a numpy dtype; strings and objects are BYTES.

    Raises SignatureMismatch for a dtype that OIP v2 cannot carry (complex, datetime, ...).
    """
    resolved = np.dtype(dtype)
    if resolved.kind in "OSUT":
        return "BYTES"
    try:
        return _NAMES[resolved.newbyteorder("<") if resolved.byteorder == ">" else resolved]
    except KeyError:
        raise SignatureMismatch(
            f"numpy dtype {resolved} has no OIP v2 datatype; cast it to one of {', '.join(DTYPES)}"
        ) from None


def all_finite(array: NDArray[np.generic]) -> bool:
    """Return whether no element is NaN or infinite (true for every datatype that can't hold either)."""
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all())
    if array.dtype == DTYPES["BF16"]:
        return bool(np.isfinite(array.astype(np.float32)).all())
    return True
