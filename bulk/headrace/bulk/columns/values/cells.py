"""Cells of text files become numbers and lists; one bad cell affects no other."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.bulk.columns.values.narrowing import Cast, narrowed
from headrace.contracts.tensors.datatypes import DTYPES, dtype_of

#: Words for a BOOL, in small letters.
_TRUTH: Final = {"true": 1, "false": 0, "t": 1, "f": 0, "yes": 1, "no": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}

#: numpy's kind of a datatype → what Arrow reads cells as, and cells that it certainly can.
_READ_AS: Final = {
    "i": (pa.int64(), r"^-?[0-9]{1,18}$"),
    "u": (pa.uint64(), r"^[0-9]{1,18}$"),
    "f": (pa.float64(), r"^[+-]?[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,4})?$"),
}


def without_empty(cells: pa.Array) -> pa.Array:
    """Return text cells without the white space around them; those that hold nothing else are nulls."""
    trimmed = pc.utf8_trim_whitespace(cells)
    empty = pc.equal(trimmed, "")
    return pc.if_else(empty, None, trimmed) if pc.any(empty).as_py() else trimmed


def parse_numbers(cells: pa.Array, datatype: str) -> Cast:
    """Read cells as numbers of a datatype; nulls become zeros. 3.0 is a whole number, 3,5 none."""
    dtype = dtype_of(datatype)
    if dtype.kind == "b":
        return _one_by_one(cells, datatype)
    kind, sure = _READ_AS.get(dtype.kind, _READ_AS["f"])
    try:
        read = pc.cast(_without_hex(cells) if dtype.kind in "iu" else cells, kind)
    except pa.ArrowInvalid:
        easy = pc.fill_null(pc.match_substring_regex(cells, sure), True)
        try:
            read = pc.cast(pc.if_else(easy, cells, None), kind)
        except pa.ArrowInvalid:
            return _one_by_one(cells, datatype)
        return _with_rest(read, cells, easy, datatype)
    return narrowed(_filled(read), dtype)


def _without_hex(cells: pa.Array) -> pa.Array:
    """Return cells of which none is hexadecimal, which Arrow reads and Python doesn't. Raises pa.ArrowInvalid."""
    if pc.any(pc.match_substring(cells, "x", ignore_case=True)).as_py():
        raise pa.ArrowInvalid("hexadecimal")
    return cells


def _filled(read: pa.Array) -> Any:
    if read.null_count:
        read = read.fill_null(pa.scalar(0).cast(read.type))
    return read.to_numpy(zero_copy_only=False)


def _with_rest(read: pa.Array, cells: pa.Array, easy: pa.Array, datatype: str) -> Cast:
    """Add the cells that Arrow may not be able to read to those that it did."""
    first = narrowed(_filled(read), dtype_of(datatype))
    hard = np.flatnonzero(~easy.to_numpy(zero_copy_only=False))
    rest = _one_by_one(cells.take(pa.array(hard)), datatype)
    values = np.array(first.values)
    values[hard] = rest.values
    return Cast(values, np.union1d(first.bad, hard[rest.bad]))


def _one_by_one(cells: pa.Array, datatype: str) -> Cast:
    dtype = DTYPES[datatype]
    read = [0 if cell is None else _number(cell, dtype) for cell in cells.to_pylist()]
    bad = [index for index, value in enumerate(read) if value is None]
    values = np.array([0 if value is None else value for value in read], object).astype(dtype)
    return Cast(values, np.array(bad, np.int64))


def _number(cell: str, dtype: np.dtype[Any]) -> int | float | None:
    """Read one cell; None if it is no number of this dtype."""
    if dtype.kind == "b":
        return _TRUTH.get(cell.lower())
    try:
        if "_" in cell:
            return None
        if dtype.kind not in "iu":
            value = float(cell)
            return None if math.isfinite(value) and narrowed(np.array([value]), dtype).bad.size else value
        whole = _whole(cell)
    except (ValueError, OverflowError):
        return None
    limits = np.iinfo(dtype)
    return whole if limits.min <= whole <= limits.max else None


def _whole(cell: str) -> int:
    """Read a whole number, which may be written as 3.0. Raises ValueError."""
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
        if not value.is_integer():
            raise
        return int(value)


def parse_lists(cells: pa.Array, datatype: str, depth: int) -> tuple[pa.Array, list[int]]:
    """Read cells as JSON lists, nested so deep. Returns an array of lists, and the indexes of cells that are none."""
    element, leaf = _json_types(datatype)
    kind: Any = element | None
    arrow = leaf
    for _ in range(depth):
        kind, arrow = list[kind], pa.list_(arrow)
    decode = msgspec.json.Decoder(kind).decode
    lists: list[Any] = []
    bad = []
    for index, cell in enumerate(cells.to_pylist()):
        try:
            lists.append(None if cell is None else decode(cell))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            lists.append(None)
            bad.append(index)
    return pa.array(lists, arrow), bad


def _json_types(datatype: str) -> tuple[Any, pa.DataType]:
    """Return what an element of a JSON list is, for the decoder and for Arrow."""
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return bool, pa.bool_()
    if dtype.kind == "O":
        return str, pa.string()
    if dtype.kind not in "iu":
        return float, pa.float64()
    limits = np.iinfo(dtype)
    # The decoder compares with signed integers of 64 bits only.
    bounds = msgspec.Meta(ge=int(limits.min), le=min(int(limits.max), 2**63 - 1))
    return Annotated[int, bounds], pa.uint64() if dtype.kind == "u" else pa.int64()
