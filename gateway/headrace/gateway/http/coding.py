"""Compressed bodies: gzip and deflate, both ways, with a bound on what comes out."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Final, TypeVar

from headrace.contracts.errors import quoted

T = TypeVar("T")

#: A body of this size takes some milliseconds to be decompressed or read.
_IN_THREAD_BYTES: Final = 256 << 10

#: Window bits of zlib for each coding of HTTP; "deflate" is the zlib format (RFC 9110, section 8.4.1.2).
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}

#: Below this, compressing an answer costs more than sending it.
_LEAST_BYTES: Final = 1024

#: A little of the possible saving for a tenth of the time; tensors of floats hardly shrink at any level.
_LEVEL: Final = 1


class UnknownCoding(ValueError):
    """A body comes in a coding that is none of gzip and deflate."""


class BadCoding(ValueError):
    """A body is not what its coding says."""


class TooLong(ValueError):
    """A body is longer than the limit once it is decoded."""


def decoded(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """Return a body without its coding. coding: the header Content-Encoding, "" or "identity" for none.

    Never holds much more than the limit. Raises UnknownCoding, BadCoding and TooLong.
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return body
    bits = _WINDOW_BITS.get(name)
    if bits is None:
        raise UnknownCoding(f"the content encoding {quoted(coding)} is not known here; send gzip, deflate or none")
    decoder = zlib.decompressobj(bits)
    try:
        found = decoder.decompress(body, limit_bytes + 1)
    except zlib.error as exc:
        raise BadCoding(f"the body is not {name}: {exc}") from None
    if len(found) > limit_bytes:
        raise TooLong
    if not decoder.eof:
        raise BadCoding(f"the body is cut off within its {name} data")
    if decoder.unused_data:
        raise BadCoding(f"{len(decoder.unused_data)} bytes follow the {name} data")
    return found


def accepted(header: str) -> str:
    """Return the coding to answer in, "" for none. header: Accept-Encoding; the first known one of it counts."""
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        name = name.strip().lower()
        if name in {"gzip", "deflate"} and not _is_refused(parameters):
            return name
    return ""


async def in_thread(function: Callable[..., T], body: bytes, *more: object) -> T:
    """Call a function of a body; in a thread where the body is so large that all others would have to wait for it."""
    if len(body) > _IN_THREAD_BYTES:
        return await asyncio.to_thread(function, body, *more)
    return function(body, *more)


def _is_refused(parameters: str) -> bool:
    key, _, value = parameters.strip().partition("=")
    return key.strip().lower() == "q" and value.strip().rstrip("0").rstrip(".") in {"", "0"}


def encoded(body: bytes, coding: str) -> bytes | None:
    """Return a body in a coding of `accepted`; None where it isn't worth it."""
    if not coding or len(body) < _LEAST_BYTES:
        return None
    return gzip.compress(body, _LEVEL, mtime=0) if coding == "gzip" else zlib.compress(body, _LEVEL)
