"""Connections outlive calls, and one that is no good is not used again."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest
from tests.eventually import eventually
from tests.runtimes.remote.http.conftest import NewClient, Serve
from tests.runtimes.remote.http.scripted import Asked, reply

from headrace.runtimes.remote.base import Access, Address, ServerAway
from headrace.runtimes.remote.transport.http_client import KEEPALIVE_S, HttpClient

LONG_S = 30.0


@contextmanager
def one_connection(treat: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Listen for one connection, which `treat` is given on a thread that ends before the block does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            # Whoever is connected may hang up in the middle, and a test that fails may never connect.
            with suppress(OSError), listener.accept()[0] as connection:
                treat(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield Address("http", "127.0.0.1", listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(LONG_S)
            assert not thread.is_alive(), "the connection was never closed"


def test_connections_are_used_again(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    calls = client(server)
    for _ in range(5):
        calls.call("GET", "/", LONG_S)
    assert server.connections == 1


def test_after_a_reopening_connections_are_new_and_calls_under_way_go_on(serve: Serve, client: NewClient) -> None:
    here, go_on = threading.Event(), threading.Event()

    def answer(asked: Asked) -> bytes:
        if asked.path == "/slow":
            here.set()
            go_on.wait(LONG_S)
        return reply()

    server = serve(answer)
    calls = client(server)
    calls.reopen()
    calls.call("GET", "/", LONG_S)
    calls.reopen()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(calls.call, "GET", "/slow", LONG_S)
        assert here.wait(LONG_S)
        calls.reopen()
        calls.call("GET", "/", LONG_S)
        go_on.set()
        assert slow.result().status == 200
    assert server.connections == 3


def test_a_forked_process_opens_connections_of_its_own(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    calls = client(server)
    calls.call("GET", "/parent", LONG_S)
    with warnings.catch_warnings():
        # Python warns of forks beside threads since 3.12; this child makes one call and leaves.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        # The child leaves without pytest's ends.
        status = 1
        try:
            status = 0 if calls.call("GET", "/child", LONG_S).status == 200 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    calls.call("GET", "/parent", LONG_S)
    assert [(asked.path, asked.connection) for asked in server.asked] == [("/parent", 0), ("/child", 1), ("/parent", 0)]


def test_a_reset_connection_is_a_server_that_is_away() -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with (
        one_connection(reset) as address,
        closing(HttpClient(address, Access())) as calls,
        pytest.raises(ServerAway, match=r"Connection reset|Broken pipe|Server disconnected"),
    ):
        calls.call("POST", "/", LONG_S, [bytes(1_000_000)])


def test_a_half_closed_connection_is_not_used_again(serve: Serve, client: NewClient) -> None:
    def answer(asked: Asked) -> Iterator[bytes]:
        yield reply(200, b"first" if asked.connection == 0 else b"second")

    server = serve(answer)
    calls = client(server)
    assert bytes(calls.call("GET", "/", LONG_S).body) == b"first"
    eventually(lambda: not server._threads[1].is_alive(), LONG_S, "the server to close the connection")
    assert bytes(calls.call("GET", "/", LONG_S).body) == b"second"


def test_an_answer_before_its_question_is_refused(serve: Serve, client: NewClient) -> None:
    stale = reply(200, b"of somebody else")
    server = serve(lambda asked: reply(200, b"mine") + stale if asked.connection == 0 else reply(200, b"new"))
    calls = client(server)
    assert bytes(calls.call("GET", "/", LONG_S).body) == b"mine"
    with pytest.raises(ServerAway, match="before the question"):
        calls.call("GET", "/", LONG_S)
    assert bytes(calls.call("GET", "/", LONG_S).body) == b"new"


def test_bytes_behind_an_answer_are_no_reason_to_suspect_the_port(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply(200, b'{"cut":1}', content_length="4") if asked.connection == 0 else reply())
    calls = client(server)
    assert bytes(calls.call("GET", "/", LONG_S).body) == b'{"cu'
    with pytest.raises(ServerAway):
        calls.call("GET", "/", LONG_S)
    assert calls.call("GET", "/", LONG_S).status == 200


def test_an_answer_may_come_before_the_whole_request() -> None:
    def answer_early(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(reply(413, b'{"error":"too much"}', connection="close"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with one_connection(answer_early) as address, closing(HttpClient(address, Access())) as calls:
        answer = calls.call("POST", "/", LONG_S, [bytes(20_000_000)])
        assert (answer.status, bytes(answer.body)) == (413, b'{"error":"too much"}')


def test_a_closed_client_opens_again(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    calls = client(server)
    calls.call("GET", "/", LONG_S)
    calls.close()
    calls.close()
    assert calls.call("GET", "/", LONG_S).status == 200
    assert server.connections == 2


#: The shortest time after which a model server closes a connection: uvicorn's, on which KServe and MLServer run.
UVICORN_CLOSES_S = 5.0


def test_connections_that_were_idle_for_longer_than_servers_wait_are_not_used_again(
    serve: Serve, client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEEPALIVE_S < UVICORN_CLOSES_S
    # Of no length, so that whatever time passes between two calls is longer.
    monkeypatch.setattr("headrace.runtimes.remote.transport.http_client.KEEPALIVE_S", 0.0)
    server = serve(lambda asked: reply())
    calls = client(server)
    for _ in range(3):
        calls.call("GET", "/", LONG_S)
    assert server.connections == 3
