"""The JSON envelope in which kombu's Redis transport keeps a message."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import msgspec
from kombu.utils.json import loads


class Envelope(msgspec.Struct, kw_only=True):
    """A message as it lies in its list. body: encoded by `properties["body_encoding"]`."""

    body: str = ""
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")
    headers: dict[str, Any] | None = None
    properties: dict[str, Any]


class NotAnEnvelope(ValueError):
    """The message is not one that kombu's Redis transport wrote."""


#: kombu's JSON writes types that JSON has not as an object with this key.
_TYPE_MARK: Final = b'"__type__"'

#: The keys at which the end of an envelope may begin. kombu writes the body first.
_TAIL_START: Final = re.compile(rb'"(?:content-encoding|content-type|headers|properties)"')

_decode: Final = msgspec.json.Decoder(Envelope).decode


def read_envelope(raw: bytes) -> Envelope:
    """Decode an envelope. Raises NotAnEnvelope with one line of cause."""
    if _TYPE_MARK not in raw:
        try:
            return _decode(raw)
        except msgspec.ValidationError as exc:
            raise NotAnEnvelope(str(exc)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass  # Python's JSON takes a little more (NaN, lone surrogates), and clients write it.
    try:
        return msgspec.convert(loads(raw), Envelope)
    # The last two: kombu makes decimals, dates and UUIDs of whatever stands where their text should.
    except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError, AttributeError) as exc:
        raise NotAnEnvelope(" ".join(str(exc).split())[:200]) from None


def read_tail(tail: bytes) -> Envelope:
    """Recover all but the body from the last bytes of an envelope. Raises NotAnEnvelope when that can't be done."""
    for match in _TAIL_START.finditer(tail):
        with suppress(NotAnEnvelope):
            return read_envelope(b"{" + tail[match.start() :])
    raise NotAnEnvelope("the headers are not in its last bytes")
