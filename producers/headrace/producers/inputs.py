"""From what a user gives to what can be sent: arrays that fit the signature, or plain nested lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from headrace.contracts.errors import InvalidRequest, PayloadTooLarge, SignatureMismatch
from headrace.contracts.signature import Signature

#: Base64 makes a body a third larger, so arrays above 3/4 of the limit can't fit.
_BASE64_GROWTH: Final = 4 / 3

#: Leaves of nested lists that JSON carries as they are.
_JSON_TYPES: Final = frozenset({int, float, bool, str})


def raw_bytes(inputs: object) -> int:
    """Count the bytes of the arrays among the inputs, without looking into them. Raises InvalidRequest if no dict."""
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise InvalidRequest("the inputs must be a dict of named arrays or nested lists, rows first")
    return sum(value.nbytes for value in inputs.values() if isinstance(value, np.ndarray))


def refuse_oversized(payload_bytes: float, limit_bytes: int) -> None:
    """Raise PayloadTooLarge when a request of this size passes the limit."""
    if payload_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"the request has about {int(payload_bytes):,} bytes encoded, but at most {limit_bytes:,} are allowed; "
            "split it into several requests, or raise HEADRACE_MAX_PAYLOAD_BYTES here and on the workers"
        )


def refuse_oversized_arrays(array_bytes: float, limit_bytes: int) -> None:
    """Raise PayloadTooLarge when arrays are so large that their encoding can't be within the limit."""
    refuse_oversized(array_bytes * _BASE64_GROWTH, limit_bytes)


class Checked(NamedTuple):
    """Inputs ready to be encoded. values: arrays, rows first; or, if is_json, whatever the worker will convert."""

    values: dict[str, Any]
    rows: int
    is_json: bool


def check_inputs(inputs: Mapping[str, object], signature: Signature | None) -> Checked:
    """Check inputs as far as this process can know.

    With a signature, or if all of them are arrays, they become arrays; else they go as JSON.
    Raises InvalidRequest or SignatureMismatch.
    """
    if signature is not None:
        arrays = signature.check_inputs(inputs)
        return Checked(arrays, next(iter(arrays.values())).shape[0], is_json=False)
    if not inputs:
        raise InvalidRequest("the inputs are empty; give at least one named array, rows first")
    rows = {name: _rows_of(name, value) for name, value in inputs.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise SignatureMismatch(f"every input must have the same number of rows, but they have: {counts}")
    count = next(iter(rows.values()))
    if all(isinstance(value, np.ndarray) for value in inputs.values()):
        return Checked(dict(inputs), count, is_json=False)
    return Checked({name: _listed(value) for name, value in inputs.items()}, count, is_json=True)


def _listed(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _rows_of(name: str, value: object) -> int:
    """Give the leading dimension of an input whose signature is unknown; refuse what JSON would alter silently."""
    if isinstance(value, np.ndarray):
        rows = value.shape[0] if value.ndim else -1
    elif isinstance(value, list | tuple):
        if _holds_bytes(name, value):
            raise SignatureMismatch(f"input {name!r} holds bytes, which JSON can't carry; give a numpy object array")
        rows = len(value)
    else:
        rows = -1
    if rows == -1:
        raise SignatureMismatch(f"input {name!r} has no row dimension; give [value] for a single row")
    if rows == 0:
        raise SignatureMismatch(f"input {name!r} has zero rows; a request holds at least one")
    return rows


def _holds_bytes(name: str, value: object) -> bool:
    if not isinstance(value, list | tuple):
        return isinstance(value, bytes | bytearray | memoryview)
    if _JSON_TYPES.issuperset(map(type, value)):
        return False
    try:
        return any(_holds_bytes(name, element) for element in value)
    except RecursionError:
        raise SignatureMismatch(f"input {name!r} is nested too deeply") from None
