"""The policy for nulls, as in `--on-null`."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec
import numpy as np

from headrace.bulk.columns.base import ColumnMismatch
from headrace.contracts.errors import HeadraceError, InvalidRequest, quoted
from headrace.contracts.tensors.codec import as_array

_FILL: Final = "fill="


class NullPolicy(msgspec.Struct, frozen=True):
    """The fate of rows with a null. fill: the text of the value that stands in for it."""

    action: Literal["error", "skip", "fill"] = "error"
    fill: str = ""


def parse_on_null(text: str) -> NullPolicy:
    """Read `--on-null`. Raises InvalidRequest."""
    if text == "error":
        return NullPolicy("error")
    if text == "skip":
        return NullPolicy("skip")
    if text.startswith(_FILL):
        return NullPolicy("fill", text[len(_FILL) :])
    raise InvalidRequest(f"on_null must be error, skip or fill=VALUE, such as fill=0, not {quoted(text)}")


def fill_value(policy: NullPolicy, datatype: str, name: str) -> Any:
    """Return the value that stands in for nulls of an input; None unless the policy fills. Raises ColumnMismatch."""
    if policy.action != "fill":
        return None
    if datatype == "BYTES":
        return policy.fill.encode()
    try:
        number = _number(policy.fill)
        array = as_array(bool(number) if datatype == "BOOL" and number in {0, 1} else number, datatype, name)
    except (ValueError, HeadraceError):
        array = np.empty(0)
    if array.ndim:
        raise ColumnMismatch(f"--on-null fill={policy.fill}: that is no value of {name!r}, which is {datatype}")
    return array[()]


def _number(text: str) -> float:
    """Read a number or a truth value. Raises ValueError."""
    words = {"true": True, "false": False, "nan": math.nan}
    return words[text.lower()] if text.lower() in words else int(text) if text.lstrip("-").isdecimal() else float(text)
