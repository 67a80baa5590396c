"""JSON as Python's json module writes and reads it, and with it Celery: NaN, Infinity and -Infinity are numbers too.

Everything else is read as strictly as msgspec reads JSON: the three literals are the only difference.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec
import numpy as np
import orjson

#: Literal → what stands in for it while msgspec reads: numbers that no float holds, so that no other text is read as
#: one of them.
_STAND_INS: Final = {b"NaN": b"1e400000000001", b"Infinity": b"1e400000000002", b"-Infinity": b"1e400000000003"}

_VALUES: Final = {b"NaN": math.nan, b"Infinity": math.inf, b"-Infinity": -math.inf}

_MEANINGS: Final = {stand_in.decode(): _VALUES[literal] for literal, stand_in in _STAND_INS.items()}

#: A string in JSON text, or the rest of the text where the string has no end. Never goes back, so it takes linear time.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'

#: What holds no literal, and the literal that follows where a value may stand.
_TOKENS: Final = re.compile(
    rb'((?:[^"NI\-]++|' + _STRING + rb"|-(?!I))++)(?:(?<=[\[,: \t\n\r])(NaN|-?Infinity)(?=[\],} \t\n\r]))?", re.DOTALL
)

_STRINGS: Final = re.compile(_STRING, re.DOTALL)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def decode(text: bytes | memoryview) -> Any:
    """Read JSON in which NaN and infinity may stand for numbers.

    Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for anything else that is not JSON.
    """
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        raw = bytes(text)
        if b"NaN" not in raw and b"Infinity" not in raw:
            raise
        return _decode_with_literals(raw)


def _decode_with_literals(text: bytes) -> Any:
    replaced = 0

    def stand_in(token: re.Match[bytes]) -> bytes:
        nonlocal replaced
        before, literal = token.groups()
        if literal is None:
            return before
        replaced += 1
        return before + _STAND_INS[literal]

    def number(digits: str) -> float:
        nonlocal replaced
        value = _MEANINGS.get(digits)
        if value is not None:
            replaced -= 1
            # Somebody may have sent a stand-in as it is; then there are more of them than literals.
            value = value if replaced >= 0 else None
        elif math.isinf(value := float(digits)):
            value = None
        if value is None:
            raise ValueError("Number out of range")
        return value

    return msgspec.json.Decoder(float_hook=number).decode(_TOKENS.sub(stand_in, text))


def encode(value: object) -> bytes:
    """Write JSON with NaN and infinity as literals.

    Raises ValueError for None, TypeError, OverflowError, ValueError or RecursionError for what JSON can't carry.
    """
    written = _encode(value)
    # msgspec writes NaN and infinity as null. The cheap look comes first.
    if not _holds_null(written):
        return written
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if _holds_null(written):
        raise ValueError("None has no place in a tensor")
    return written


def _holds_null(text: bytes) -> bool:
    return b"null" in text and b"null" in _STRINGS.sub(b"", text)


def encode_array(value: Any) -> bytes:
    """Write numbers as nested lists, each float by its shortest exact digits, NaN and infinity as literals.

    value: a contiguous array of numbers in native byte order, of a datatype that orjson knows; or any other value that
    orjson knows.
    """
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if isinstance(value, float):
        return text if math.isfinite(value) else _literal(value)
    if not isinstance(value, np.ndarray) or b"null" not in text:
        return text
    pieces = text.split(b"null")
    literals = map(_literal, value[~np.isfinite(value)].tolist())
    return b"".join(piece + literal for piece, literal in zip(pieces, [*literals, b""], strict=True))


def _literal(value: float) -> bytes:
    return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
