"""A frozen connection swallows what is sent, in the directions that were asked for, and nobody hears that it ended."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from tests.chaos.wire.link import LOOK_S, Direction, Silence
from tests.chaos.wire.notice import notice_of
from tests.chaos.wire.proxy import Proxy, ProxyLoop, tcp
from tests.eventually import eventually

#: Far more than a byte needs through the proxy, and what is waited for where nothing must come.
SOON_S, NEVER_S = 10.0, 0.3


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets, and writes it down."""

    server: EchoServer

    def handle(self) -> None:
        while piece := self.request.recv(4096):
            self.server.heard.append(piece)
            self.request.sendall(piece)
        self.server.left.set()


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard: list[bytes] = []
        self.left = threading.Event()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[Proxy]:
    with ProxyLoop() as loop:
        proxy = Proxy(loop, tcp(*server.server_address))
        proxy.start()
        yield proxy
        proxy.stop()


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON_S)
    assert exchange(connection) == b"hello"
    return connection


def exchange(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(4096)


def freeze(proxy: Proxy, direction: Direction, share: float = 1.0) -> list[Silence]:
    return proxy.freeze(direction, share, random.Random(1))


@pytest.mark.parametrize("direction", [Direction.REQUESTS, Direction.REPLIES, Direction.BOTH])
def test_a_frozen_connection_answers_nothing_and_a_new_one_works(
    server: EchoServer, proxy: Proxy, direction: Direction
) -> None:
    with connect(proxy) as old:
        server.heard.clear()
        (silence,) = freeze(proxy, direction)
        old.settimeout(NEVER_S)
        with pytest.raises(TimeoutError):
            exchange(old)
        assert silence.swallowed_bytes == len(b"hello")
        assert server.heard == ([b"hello"] if direction is Direction.REPLIES else [])
        with connect(proxy) as new:
            assert exchange(new) == b"hello"


def test_a_server_that_cannot_hear_its_client_does_not_hear_that_it_leaves(server: EchoServer, proxy: Proxy) -> None:
    with connect(proxy) as old:
        (silence,) = freeze(proxy, Direction.REQUESTS)
        old.sendall(b"lost")
        eventually(lambda: silence.swallowed_bytes, SOON_S, "bytes that go nowhere")
    eventually(lambda: silence.left_at is not None, SOON_S, "the end of the connection")
    assert not server.left.wait(NEVER_S)


def test_a_server_that_hears_its_client_hears_that_it_leaves(server: EchoServer, proxy: Proxy) -> None:
    with connect(proxy):
        freeze(proxy, Direction.REPLIES)
    assert server.left.wait(SOON_S)


def test_a_client_that_cannot_hear_its_server_does_not_hear_that_it_ends(server: EchoServer, proxy: Proxy) -> None:
    with connect(proxy) as old:
        freeze(proxy, Direction.REPLIES)
        proxy.cut()
        old.settimeout(NEVER_S)
        with pytest.raises(TimeoutError):
            old.recv(1)


def test_half_of_the_connections_are_frozen(proxy: Proxy) -> None:
    connections = [connect(proxy) for _ in range(6)]
    assert len(freeze(proxy, Direction.BOTH, 0.5)) == 3
    for connection in connections:
        connection.close()


def test_a_host_that_is_gone_answers_neither_old_connections_nor_new_ones_until_it_is_back(proxy: Proxy) -> None:
    with connect(proxy) as old:
        proxy.vanish()
        for connection in (old, socket.create_connection(("127.0.0.1", proxy.port))):
            with connection:
                connection.settimeout(NEVER_S)
                with pytest.raises(TimeoutError):
                    exchange(connection)
    proxy.flow()
    with connect(proxy) as new:
        assert exchange(new) == b"hello"


def test_a_connection_that_is_kept_for_too_long_is_named_with_its_owner(proxy: Proxy) -> None:
    with connect(proxy) as old:
        (silence,) = freeze(proxy, Direction.BOTH)
        assert notice_of([silence], 0.0).late == []  # nobody used it yet
        old.sendall(b"PING")
        eventually(lambda: silence.swallowed_bytes, SOON_S, "bytes that go nowhere")
        assert notice_of([silence], 0.0).late == []
        assert silence.swallowed_at is not None
        silence.swallowed_at -= 60
        (line,) = notice_of([silence], 0.0).late
        assert "python" in line
        assert "PING" in line


MARK = b"*5\r\n$3\r\nSET\r\n$49\r\nheadrace:running:890954e545264"
FATAL = b"E\x00\x00\x00tSFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command"
NOTICE = b"N\x00\x00\x00tSWARNING\x00VWARNING\x00C57P01\x00Mterminating connection"


@pytest.mark.parametrize(
    ("first", "asked_at", "used_at", "is_late"),
    [
        (b"PING", None, None, True),
        (b"N", None, None, True),
        (MARK, None, None, False),
        (MARK, 1.0, 12.0, False),
        (MARK, 1.0, 14.0, True),
        (b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON", None, None, False),
        (FATAL, None, None, False),
        (NOTICE, None, None, False),
        (NOTICE, 10.0, 10.0, False),
        (NOTICE, 2.0, 2.0, True),
    ],
)
def test_a_connection_is_kept_for_too_long_if_somebody_waits_for_it_or_still_uses_it(
    first: bytes, asked_at: float | None, used_at: float | None, is_late: bool
) -> None:
    silence = Silence(1, 2, Direction.BOTH, len(first), 0.0, asked_at, used_at, left_at=16.0, first_bytes=first)
    assert bool(notice_of([silence], 2.0).late) is is_late


def test_it_is_seen_when_the_peer_of_a_frozen_connection_sends_more(proxy: Proxy) -> None:
    with connect(proxy) as old:
        (silence,) = freeze(proxy, Direction.BOTH)
        old.sendall(b"PING")
        eventually(lambda: silence.swallowed_bytes, SOON_S, "bytes that go nowhere")
        time.sleep(3 * LOOK_S)
        before = silence.asked_at
        assert before is None
        old.sendall(b"PING")
        eventually(lambda: silence.asked_at, SOON_S, "a question")
        swallowed_at, asked_at, used_at = silence.swallowed_at, silence.asked_at, silence.used_at
        assert swallowed_at is not None
        assert asked_at is not None
        assert used_at is not None
        assert used_at >= asked_at > swallowed_at


def test_a_connection_of_markers_is_known_by_what_was_sent_before_it_was_frozen() -> None:
    silence = Silence(1, 2, Direction.REPLIES, 5, 0.0, left_at=60.0, first_bytes=b"+OK\r\n", last_request=MARK)
    assert notice_of([silence], 2.0).late == []


def test_the_last_request_before_a_freeze_is_remembered(proxy: Proxy) -> None:
    with connect(proxy) as old:
        exchange(old)
        (silence,) = freeze(proxy, Direction.REPLIES)
        assert silence.last_request
