"""Bodies of requests, read within limits of size and time."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Message, Receive

from headrace.gateway.http.coding import BadCoding, TooLong, UnknownCoding, decoded, in_thread
from headrace.gateway.http.refusal import HttpRefusal

#: Of a length that a body could have.
_MOST_DIGITS: Final = 18

#: A client may pause no longer than this within a body; slower ones hold a connection for nothing.
_PAUSE_S: Final = 30.0


class ClientGone(Exception):
    """The client closed its connection."""


class Limits:
    """Limits on bodies. most_bytes: as they come, and once decoded."""

    def __init__(self, most_bytes: int) -> None:
        """most_bytes: at least 1."""
        self.most_bytes = most_bytes

    def are_passed_by(self, length: str) -> bool:
        """Return whether a header Content-Length says that the body is too large."""
        if not (length.isascii() and length.isdigit()):
            return False
        # Python refuses to read numbers of thousands of digits.
        return len(length) > _MOST_DIGITS or int(length) > self.most_bytes

    def refuse(self) -> HttpRefusal:
        """Return the error of a body that is too large."""
        return HttpRefusal(
            "too-large",
            f"the body has more than {self.most_bytes:,} bytes; send the tensors as bytes, split the request, or raise "
            "HEADRACE_GATEWAY_BODY_BYTES",
            close=True,
        )


async def read_body(receive: Receive, length: str | None, coding: str, limits: Limits) -> bytes:
    """Read a whole body and undo its coding. length: the header Content-Length. coding: Content-Encoding, or "".

    Raises HttpRefusal, before reading where the length says so; ClientGone.
    """
    if length is not None and limits.are_passed_by(length):
        raise limits.refuse()
    body = await _read_raw(receive, limits)
    if not coding:
        return body
    try:
        return await in_thread(decoded, body, coding, limits.most_bytes)
    except TooLong:
        raise limits.refuse() from None
    except UnknownCoding as exc:
        raise HttpRefusal("unsupported-encoding", str(exc), headers={"Accept-Encoding": "gzip, deflate"}) from None
    except BadCoding as exc:
        raise HttpRefusal("invalid-request", str(exc)) from None


async def _read_raw(receive: Receive, limits: Limits) -> bytes:
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limits.most_bytes:
            raise limits.refuse()
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > limits.most_bytes:
            raise limits.refuse()
        message = await _next(receive)
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > limits.most_bytes:
        raise limits.refuse()
    return b"".join(parts)


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(_PAUSE_S):
            message = await receive()
    except TimeoutError:
        raise HttpRefusal(
            "body-timeout", f"no byte of the body came for {_PAUSE_S:g} s; send it without pauses", close=True
        ) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message
