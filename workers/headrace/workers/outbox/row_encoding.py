"""Outputs of a whole batch, cut into one JSON text and one tensor body a request.

Most traffic is requests of one row. For those the bytes of a batch are laid out as one matrix and cut, rather than
encoded one by one: at 256 rows that is the difference between 8 and 0.5 microseconds a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from headrace.contracts import Tensors, encode_tensors
from headrace.contracts.tensors.codec import MAX_SHORT_MAP, can_be_json, encode_entry, map_head, tensors_to_json
from headrace.contracts.tensors.datatypes import DTYPES, all_finite, datatype_of
from headrace.workers.request import Run

#: JSON of a matrix is cut at its row boundaries; deeper nesting takes the general way.
_MAX_JSON_DIMENSIONS: Final = 2

#: Larger outputs are stored as tensors, not as JSON: Postgres writes 1e300 as 301 digits, and gives back no text of
#: more than 1 GiB; nor can its jsonb hold an array of more than 2^24 elements.
MAX_JSON_BYTES: Final = 16 << 20

#: Below this size as tensors the outputs of a run are no more than MAX_JSON_BYTES as JSON: `false,` for one byte is the
#: longest text there is, but for binary strings, `\\u0001`.
_LARGE_BYTES: Final = MAX_JSON_BYTES // 8


def bodies(run: Run) -> list[bytes]:
    """Encode the outputs of each request as `encode_tensors` would."""
    if _is_plain(run):
        return single_row_bodies(run.outputs, len(run.requests))
    return [encode_tensors(piece) for piece in run.pieces()]


def texts(run: Run) -> list[bytes | None]:
    """Encode the outputs of each request as `tensors_to_json` would; None where JSON can't hold them exactly."""
    if may_be_large(run):
        return [_text_of_bounded_size(piece) for piece in run.pieces()]
    if _is_plain(run) and all(splits(array) for array in run.outputs.values()):
        return list(single_row_texts(run.outputs))
    return [tensors_to_json(piece) if can_be_json(piece) else None for piece in run.pieces()]


def _text_of_bounded_size(outputs: Tensors) -> bytes | None:
    if body_bytes(outputs) > MAX_JSON_BYTES or not can_be_json(outputs):
        return None
    text = tensors_to_json(outputs)
    return text if len(text) <= MAX_JSON_BYTES else None


def body_bytes(outputs: Tensors) -> int:
    """Return how many bytes outputs take as tensors, but for names and shapes."""
    # What an array of objects refers to isn't in its nbytes; only outputs of BYTES are such.
    return sum(
        array.nbytes if array.dtype.kind != "O" else array.nbytes + sum(map(len, array.flat))
        for array in outputs.values()
    )


def may_be_large(run: Run) -> bool:
    """Return whether the outputs of some request may need a look at their size before they are stored."""
    return body_bytes(run.outputs) > _LARGE_BYTES


def _is_plain(run: Run) -> bool:
    """Whether the bytes of a batch are one matrix with a line for each request."""
    return (
        len(run.requests) > 1
        and run.axes.all_first
        and run.rows.count(1) == len(run.requests)
        and len(run.outputs) <= MAX_SHORT_MAP
        and all(array.dtype.kind in "biuf" for array in run.outputs.values())
    )


def splits(array: NDArray[Any]) -> bool:
    """Return whether the JSON of an array can be cut into that of its rows."""
    return array.ndim <= _MAX_JSON_DIMENSIONS and array.size > 0 and all_finite(array)


def single_row_bodies(outputs: Tensors, rows: int) -> list[bytes]:
    """Encode the rows of outputs as `encode_tensors` would. All are rows first and of numbers."""
    columns: list[NDArray[np.uint8]] = []
    pending = map_head(len(outputs))
    for name, array in outputs.items():
        little = np.ascontiguousarray(array, dtype=DTYPES[datatype_of(array.dtype)]).reshape(rows, -1)
        payload = little.view(np.uint8).reshape(rows, -1)
        size = payload.shape[1]
        entry = encode_entry(name, array[:1])
        pending += entry[: len(entry) - size]
        columns += [_constant(pending, rows), payload]
        pending = b""
    joined = np.concatenate(columns, axis=1)
    width = joined.shape[1]
    raw = joined.tobytes()
    return [raw[start : start + width] for start in range(0, rows * width, width)]


def _constant(prefix: bytes, rows: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.frombuffer(prefix, np.uint8), (rows, len(prefix)))


def single_row_texts(outputs: Tensors) -> list[bytes]:
    """Encode the rows of outputs as `tensors_to_json` would. All are rows first, of one or two dimensions, finite."""
    parts: list[Sequence[bytes]] = []
    separator = b"{"
    for name, array in outputs.items():
        key = separator + orjson.dumps(name) + b":"
        text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
        if array.ndim == 1:
            parts.append([key + b"[" + value + b"]" for value in text[1:-1].split(b",")])
        else:
            parts.append([key + b"[[" + value + b"]]" for value in text[2:-2].split(b"],[")])
        separator = b","
    return [b"".join(row) + b"}" for row in zip(*parts, strict=True)]
