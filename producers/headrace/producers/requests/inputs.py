"""Checks and converts inputs before encoding: to arrays that fit the signature, or to plain nested lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from headrace.contracts.errors import InvalidRequest, PayloadTooLarge, SignatureMismatch
from headrace.contracts.package.signature import Signature

#: Base64 makes a body a third larger, so arrays above 3/4 of the limit can't fit.
_BASE64_GROWTH: Final = 4 / 3

#: Leaves of nested lists that JSON carries as they are.
_JSON_TYPES: Final = frozenset({int, float, bool, str})


def raw_bytes(inputs: object) -> int:
    """Count the bytes of the arrays among the inputs, without looking into them. Raises InvalidRequest if no dict."""
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise InvalidRequest("the inputs must be a dict of named arrays or nested lists")
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
    """Inputs ready to be encoded.

    values: arrays; or, if is_json, whatever the worker will convert. axes: for each of them the dimension that holds
    its rows; None if it has none, and always where only the worker knows. rows: 0 where only the worker knows.
    """

    values: dict[str, Any]
    rows: int
    is_json: bool
    axes: dict[str, int | None]


def check_inputs(inputs: Mapping[str, object], signature: Signature | None) -> Checked:
    """Check inputs as far as this process can know.

    With a signature, or if all of them are arrays, they become arrays; else they go as JSON. Without one, which of them
    have rows, and where, is up to the worker. Raises InvalidRequest or SignatureMismatch.
    """
    if signature is not None:
        arrays = signature.check_inputs(inputs)
        axes = {spec.name: spec.row_axis for spec in signature.inputs if spec.name in arrays}
        return Checked(arrays, signature.rows_of(arrays), is_json=False, axes=axes)
    if not inputs:
        raise InvalidRequest("the inputs are empty; give at least one named array")
    values = {name: _readable(name, value) for name, value in inputs.items()}
    if all(_length(value) == 0 for value in values.values()):
        raise SignatureMismatch("every input is empty; a request must hold some data")
    is_json = not all(isinstance(value, np.ndarray) for value in values.values())
    if is_json:
        values = {name: _listed(value) for name, value in values.items()}
    return Checked(values, _agreed_length(values), is_json, dict.fromkeys(values))


def cut_first(checked: Checked) -> Checked:
    """Return checked inputs whose rows, in want of a signature, are taken to be in the first dimension of each.

    Values without dimensions have none. Raises SignatureMismatch if they are not all as long, or none has any.
    """
    lengths = {name: length for name, value in checked.values.items() if (length := _length(value)) is not None}
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items()) or "none has any"
        raise SignatureMismatch(
            f"without the model's signature here, rows are cut along the first dimensions, which must be equal, but "
            f"they are: {counts}; use submit for each request, or set HEADRACE_MODELS to the model directory"
        )
    (rows,) = set(lengths.values())
    if rows == 0:
        raise SignatureMismatch("every input has zero rows; there is nothing to submit")
    axes = {name: 0 if name in lengths else None for name in checked.values}
    return checked._replace(rows=rows, axes=axes)


def _listed(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _readable(name: str, value: object) -> object:
    """Return a value as it can be encoded; refuse what JSON would alter silently."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if _holds_bytes(name, value):
        raise SignatureMismatch(f"input {name!r} holds bytes, which JSON can't carry; give a numpy object array")
    return value


def _length(value: object) -> int | None:
    """Return the size of the first dimension; None for a value without dimensions."""
    if isinstance(value, np.ndarray):
        return value.shape[0] if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def _agreed_length(values: Mapping[str, object]) -> int:
    lengths = {length for value in values.values() if (length := _length(value)) is not None}
    return lengths.pop() if len(lengths) == 1 else 0


def _holds_bytes(name: str, value: object) -> bool:
    if not isinstance(value, list | tuple):
        return isinstance(value, bytes | bytearray | memoryview)
    if _JSON_TYPES.issuperset(map(type, value)):
        return False
    try:
        return any(_holds_bytes(name, element) for element in value)
    except RecursionError:
        raise SignatureMismatch(f"input {name!r} is nested too deeply") from None
