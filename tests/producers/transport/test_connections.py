"""A client's connections: each call ends with an answer or an error, also at a server that ends every connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
import redis.exceptions

from headrace.producers.transport.connections import connect_for_calls, connect_for_calls_async

#: The first attempt and the two after it.
ATTEMPTS = 3


class ClosingServer:
    """Accepts connections and ends each at once, as a proxy does whose server is away. accepted: how many so far."""

    def __init__(self) -> None:
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[ClosingServer]:
    server = ClosingServer()
    yield server
    server.close()


def test_call_fails_after_its_attempts_when_the_server_ends_every_connection(server: ClosingServer) -> None:
    with connect_for_calls(server.url) as client, pytest.raises(redis.exceptions.ConnectionError):
        client.ping()
    assert server.accepted == ATTEMPTS


def test_asyncio_call_fails_after_its_attempts_when_the_server_ends_every_connection(server: ClosingServer) -> None:
    async def call() -> None:
        client = connect_for_calls_async(server.url)
        try:
            with pytest.raises(redis.exceptions.ConnectionError):
                await client.ping()
        finally:
            await client.aclose()

    asyncio.run(call())
    assert server.accepted == ATTEMPTS
