"""HTTP/1.1 to one endpoint: connections that outlive calls, calls that end in time, answers that end in size."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpcore

from headrace.runtimes.remote.base import Access, Address, BatchTooLarge, Misconfigured, ServerAway
from headrace.runtimes.remote.encoding.raw import Buffer
from headrace.runtimes.remote.transport.http_reply import Reply, failure
from headrace.runtimes.remote.transport.http_trouble import trouble_of
from headrace.runtimes.remote.transport.network import DeadlineBackend, DeadlineStream, call_until
from headrace.runtimes.remote.transport.tls import client_context

#: Connections are closed after so long without a call: before servers close them (uvicorn after 5 s), so that no batch
#: is sent into a connection that is just being closed.
KEEPALIVE_S: Final = 3.0

#: Longer answers are refused while they arrive.
MAX_ANSWER_BYTES: Final = 1 << 30

#: Of an error's body; what a person reads of it is far shorter.
_MAX_ERROR_BYTES: Final = 1 << 20

#: A body is sent in pieces of this size: large enough to cost nothing, small beside the copy of a whole batch.
_PIECE_BYTES: Final = 1 << 20


class HttpClient:
    """One endpoint. Thread-safe; opens its connections at the first call, and anew in a process that was forked."""

    def __init__(self, address: Address, access: Access, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        """Open nothing yet."""
        self._address = address
        self._access = access
        self._max_answer_bytes = max_answer_bytes
        #: By process: connections that a fork inherited belong to the parent.
        self._pools: dict[int, httpcore.ConnectionPool] = {}
        self._base_path = quote(address.path, safe="/%")
        self._speaks_http = False

    def call(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: Sequence[Buffer] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the answer, whatever its status. path: quoted, from the address's own path on.

        Raises ServerAway, Misconfigured, BatchTooLarge.
        """
        where = str(self._address)
        if timeout_s <= 0:
            raise ServerAway(f"{where}: no time is left for the call")
        try:
            with call_until(time.monotonic() + timeout_s), self._open(method, path, body, headers or {}) as response:
                stream = response.extensions["network_stream"]
                if isinstance(stream, DeadlineStream) and stream.unasked:
                    raise ServerAway(f"{where}: the answer was there before the question; the connection is closed")
                self._speaks_http = True
                return self._read(response, where)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
            raise trouble_of(exc, self._address, timeout_s, first=not self._speaks_http) from exc

    def reopen(self) -> None:
        """Close the connections of this process that no call uses; a call that has taken one meanwhile fails."""
        if pool := self._pools.get(os.getpid()):
            for connection in pool.connections:
                if connection.is_idle():
                    connection.close()

    def close(self) -> None:
        """Close the connections of this process."""
        if pool := self._pools.pop(os.getpid(), None):
            pool.close()

    def _open(
        self, method: str, path: str, body: Sequence[Buffer], headers: Mapping[str, str]
    ) -> AbstractContextManager[httpcore.Response]:
        views = [memoryview(part) for part in body]
        fields = self._fields() | dict(headers)
        if method == "POST":
            fields["Content-Length"] = str(sum(view.nbytes for view in views))
        url = httpcore.URL(
            scheme=self._address.scheme.encode(),
            host=self._host(),
            port=self._address.port,
            target=(self._base_path + path).encode("ascii"),
        )
        encoded = [(name.encode(), value.encode("ascii")) for name, value in fields.items()]
        return self._pool().stream(method, url, headers=encoded, content=_pieces(views) if views else None)

    def _fields(self) -> dict[str, str]:
        authorization = self._access.authorization
        if not (authorization.isascii() and authorization.isprintable()):
            # The libraries below would quote it in their error.
            raise Misconfigured(f"{self._address}: its credentials hold characters that no HTTP header may")
        host = self._host().decode()
        return {
            "Host": f"[{host}]:{self._address.port}" if ":" in host else f"{host}:{self._address.port}",
            "User-Agent": "headrace",
            # Compressed tensors cost more time than they save on the way to a server next door.
            "Accept-Encoding": "identity",
            **({"Authorization": authorization} if authorization else {}),
        }

    def _host(self) -> bytes:
        host = self._address.host
        try:
            return host.encode("ascii" if host.isascii() else "idna")
        except UnicodeError as exc:
            raise Misconfigured(f"{self._address}: no host can have this name: {exc}") from None

    def _pool(self) -> httpcore.ConnectionPool:
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            # Of two threads that come at once, the second takes the first one's.
            pool = self._pools.setdefault(process, self._new_pool())
        return pool

    def _new_pool(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(
            ssl_context=client_context(self._access, self._address) if self._address.encrypted else None,
            max_connections=None,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=DeadlineBackend(),
        )

    def _read(self, response: httpcore.Response, where: str) -> Reply:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Misconfigured(
                f"{where}: the answer is compressed, though it was asked not to be; switch compression off for this "
                "path, in the server or in the proxy in front of it"
            )
        failed = response.status != HTTPStatus.OK
        most = _MAX_ERROR_BYTES if failed else self._max_answer_bytes
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > most:
                if failed:
                    break
                raise BatchTooLarge(f"{where}: the answer is larger than {most} bytes")
        return Reply(response.status, headers, self._access.hide_in(bytes(body)) if failed else body)


def succeed(reply: Reply, where: str) -> Reply:
    """Return an answer of status 200, and raise what any other stands for. where: the model and its server."""
    if reply.succeeded:
        return reply
    raise failure(reply, where, dt.datetime.now(dt.UTC))


def _pieces(views: Sequence[memoryview]) -> Iterator[bytes]:
    for view in views:
        for start in range(0, view.nbytes, _PIECE_BYTES):
            yield view[start : start + _PIECE_BYTES]  # type: ignore[misc]  # h11 takes any buffer of bytes
