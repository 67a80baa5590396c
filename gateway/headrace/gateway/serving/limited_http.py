"""uvicorn's connections, with limits on what stands before the body: its size, and the time in which it comes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.gateway.http.problem import CONTENT_TYPE, document

#: Bytes of request line and headers; what proxies allow is half of it or less.
MOST_HEAD_BYTES: Final = 65_536

#: Seconds in which request line and headers must be there; a client that sends slower holds a connection for nothing.
HEAD_S: Final = 20.0

_DETAIL: Final = f"request line and headers have more than {MOST_HEAD_BYTES} bytes; send less"

_STATUS: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

_BODY: Final = orjson.dumps(document("too-large", _STATUS, _DETAIL))

_TOO_LARGE: Final = (
    f"HTTP/1.1 {_STATUS} {_STATUS.phrase}\r\nConnection: close\r\n"
    f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
).encode() + _BODY


class LimitedHttp(HttpToolsProtocol):
    """A connection that is closed when the head of a request is too long, or does not come in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a piece; between requests, the first one of a head begins the wait for the rest of it."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._timer is None:
                self._timer = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Take the head as whole."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be ready for the head of another request."""
        self._in_head = True
        super().on_message_complete()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
