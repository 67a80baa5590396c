"""HTTP calls end in time and in size, whatever the server does, and say what happened."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.eventually import eventually
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import Asked, ScriptedServer, reply

from headrace.runtimes.remote.base import Access, Address, BatchTooLarge, Misconfigured, ServerAway, parse_address
from headrace.runtimes.remote.encoding.raw import Buffer
from headrace.runtimes.remote.transport.http_client import MAX_ANSWER_BYTES, HttpClient

#: Ends a call in tests that must not hang; nothing is said about speed.
LONG_S = 30.0
SHORT_S = 0.3


class NewClient:
    """Makes clients of servers, which close with the test."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing

    def __call__(
        self, server: ScriptedServer, access: Access | None = None, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> HttpClient:
        return self._closing(HttpClient(server.address, access or Access(), max_answer_bytes))


@pytest.fixture
def client(closing: Closing) -> NewClient:
    return NewClient(closing)


def test_a_call_sends_its_body_and_returns_the_answer(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply(200, b'{"ok":true}', x_served_by="me"))
    body: list[Buffer] = [b"head", bytearray(b"-"), memoryview(b"x" * 3_000_000)]
    answer = client(server).call("POST", "/v2/models/a%20b/infer", LONG_S, body, {"X-Mine": "1"})
    assert (answer.status, bytes(answer.body), answer.headers["x-served-by"]) == (200, b'{"ok":true}', "me")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["x-mine"]) == ("POST", "/v2/models/a%20b/infer", "1")
    assert asked.body == b"".join(body)
    assert asked.headers["accept-encoding"] == "identity"
    assert "authorization" not in asked.headers


def test_a_path_of_the_address_stands_in_front(serve: Serve, closing: Closing) -> None:
    server = serve(lambda asked: reply())
    address = parse_address(f"http://127.0.0.1:{server.address.port}/serving/")
    closing(HttpClient(address, Access())).call("GET", "/v2", LONG_S)
    assert server.asked[0].path == "/serving/v2"


def test_credentials_go_into_the_header_and_into_no_error(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply(401, b'{"error":"who are you?"}'))
    answer = client(server, Access(authorization="Bearer s3cret")).call("GET", "/", LONG_S)
    assert server.asked[0].headers["authorization"] == "Bearer s3cret"
    assert answer.status == 401


@pytest.mark.parametrize("secret", ["Bearer s3cret\n", "Bearer s3crét", "Bearer s3cret\x00"])
def test_credentials_that_no_header_carries_are_not_quoted(serve: Serve, client: NewClient, secret: str) -> None:
    with pytest.raises(Misconfigured, match="credentials hold characters") as caught:
        client(serve(lambda asked: reply()), Access(authorization=secret)).call("GET", "/", LONG_S)
    assert "s3cr" not in str(caught.value)


def test_paths_and_hosts_are_encoded(serve: Serve, closing: Closing) -> None:
    server = serve(lambda asked: reply())
    odd = Address("http", "127.0.0.1", server.address.port, "/ä b")
    closing(HttpClient(odd, Access())).call("GET", "/v2", LONG_S)
    assert server.asked[0].path == "/%C3%A4%20b/v2"
    with pytest.raises(ServerAway, match=r"the name nirgendwö\.invalid is not known"):
        closing(HttpClient(Address("http", "nirgendwö.invalid", 80), Access())).call("GET", "/", LONG_S)
    with pytest.raises(Misconfigured, match="no host can have this name"):
        closing(HttpClient(Address("http", "ä" * 80, 80), Access())).call("GET", "/", LONG_S)


def test_an_address_of_ipv6_has_brackets(closing: Closing) -> None:
    # Nobody listens there, whether or not this machine has IPv6.
    with pytest.raises(ServerAway, match=r"^http://\[::1\]:1: "):
        closing(HttpClient(parse_address("http://[::1]:1"), Access())).call("GET", "/", LONG_S)


def test_proxies_of_the_environment_are_not_used(
    serve: Serve, client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert client(serve(lambda asked: reply())).call("GET", "/", LONG_S).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve: Serve, client: NewClient, status: int) -> None:
    server = serve(lambda asked: reply(status, location="http://127.0.0.1:1/"))
    assert client(server).call("POST", "/", LONG_S, [b"x"]).status == status
    assert len(server.asked) == 1


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


def test_calls_run_side_by_side(serve: Serve, client: NewClient) -> None:
    together = threading.Barrier(8)
    server = serve(lambda asked: (together.wait(LONG_S), reply())[1])
    calls = client(server)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: calls.call("GET", "/", LONG_S).status, range(8)))
    assert answers == [200] * 8


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


def test_a_silent_server_is_away_when_the_time_is_over(serve: Serve, client: NewClient) -> None:
    def stay_silent(asked: Asked) -> None:
        server.stopping.wait(LONG_S)

    server = serve(stay_silent)
    with pytest.raises(ServerAway, match=r"did not answer within 0\.3 s"):
        client(server).call("GET", "/", SHORT_S)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_does_not_hold_a_call(serve: Serve, client: NewClient, part: str) -> None:
    whole = reply(200, b"x" * 10_000)
    start = whole.index(b"\r\n\r\n") + 4 if part == "body" else 0

    def answer(asked: Asked) -> Iterator[bytes]:
        yield whole[:start]
        # Each byte comes well within the time of the call; all of them together don't.
        yield from server.drip(whole[start:])

    server = serve(answer)
    with pytest.raises(ServerAway, match="did not answer within"):
        client(server).call("GET", "/", SHORT_S)


def test_a_server_that_does_not_read_does_not_hold_a_call(closing: Closing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = Address("http", "127.0.0.1", deaf.getsockname()[1])
        with pytest.raises(ServerAway, match="did not answer within"):
            closing(HttpClient(address, Access())).call("POST", "/", SHORT_S, [bytes(64_000_000)])


def test_no_call_is_made_without_time(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    with pytest.raises(ServerAway, match="no time is left"):
        client(server).call("GET", "/", 0.0)
    assert server.asked == []


@pytest.mark.parametrize("declared", [True, False])
def test_a_gigantic_answer_is_refused_while_it_arrives(serve: Serve, client: NewClient, declared: bool) -> None:
    sent: list[int] = []

    def answer(asked: Asked) -> Iterator[bytes]:
        yield reply(200, content_length=str(1 << 40) if declared else "")
        while not server.stopping.is_set():
            sent.append(1)
            yield bytes(1 << 16)

    server = serve(answer)
    with pytest.raises(BatchTooLarge, match="the answer is larger than 1000000 bytes"):
        client(server, max_answer_bytes=1_000_000).call("GET", "/", LONG_S)
    # The connection was closed, so the server can't go on.
    eventually(lambda: not server._threads[-1].is_alive(), LONG_S, "the server to notice")
    assert len(sent) < 1000


def test_of_a_gigantic_error_the_start_is_read(serve: Serve, client: NewClient) -> None:
    def answer(asked: Asked) -> Iterator[bytes]:
        yield reply(500, content_length=str(1 << 40))
        while not server.stopping.is_set():
            yield b"no " * 10_000

    server = serve(answer)
    found = client(server).call("GET", "/", LONG_S)
    assert found.status == 500
    assert len(found.body) < 2 << 20


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([], "Server disconnected"),
        ([b"HTTP/1.1 200 OK\r\ncontent-len"], "without sending"),
        ([reply(200, b"{}", content_length="5000")], "without sending complete"),
        ([reply(200, b"", transfer_encoding="chunked", content_length=""), b"5\r\nab"], "without sending complete"),
    ],
    ids=["nothing", "half a head", "too short", "half a chunk"],
)
def test_a_connection_that_ends_early_is_a_server_that_is_away(
    serve: Serve, client: NewClient, sent: list[bytes], words: str
) -> None:
    with pytest.raises(ServerAway, match=words):
        client(serve(lambda asked: iter(sent))).call("POST", "/", LONG_S, [b"x"])


def test_a_reset_connection_is_a_server_that_is_away(closing: Closing) -> None:
    def reset(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset, args=(listener,))
        thread.start()
        address = Address("http", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(ServerAway):
            closing(HttpClient(address, Access())).call("POST", "/", LONG_S, [bytes(1_000_000)])
        thread.join()


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


def test_an_answer_may_come_before_the_whole_request(serve: Serve, client: NewClient) -> None:
    def answer_early(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(reply(413, b'{"error":"too much"}', connection="close"))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_early, args=(listener,))
        thread.start()
        calls = HttpClient(Address("http", "127.0.0.1", listener.getsockname()[1]), Access())
        assert calls.call("POST", "/", LONG_S, [bytes(20_000_000)]).status == 413
        calls.close()
        thread.join()


def test_a_compressed_answer_is_refused(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply(200, b"\x1f\x8b", content_encoding="gzip"))
    with pytest.raises(Misconfigured, match="switch compression off for this path"):
        client(server).call("GET", "/", LONG_S)


def test_nobody_there_is_a_server_that_is_away(closing: Closing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerAway, match=rf"http://127\.0\.0\.1:{port}: Connection refused"):
        closing(HttpClient(Address("http", "127.0.0.1", port), Access())).call("GET", "/", LONG_S)


def test_an_unknown_host_is_named(closing: Closing) -> None:
    with pytest.raises(ServerAway, match=r"the name nowhere\.invalid is not known"):
        closing(HttpClient(parse_address("http://nowhere.invalid:80"), Access())).call("GET", "/", LONG_S)


@pytest.mark.parametrize("greeting", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"])
def test_a_port_of_another_protocol_is_named(serve: Serve, client: NewClient, greeting: bytes) -> None:
    with pytest.raises(Misconfigured, match=r"doesn't speak HTTP/1\.1 on that port"):
        client(serve(lambda asked: [greeting * 10])).call("GET", "/", LONG_S)


def test_a_closed_client_opens_again(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    calls = client(server)
    calls.call("GET", "/", LONG_S)
    calls.close()
    calls.close()
    assert calls.call("GET", "/", LONG_S).status == 200
    assert server.connections == 2


def test_idle_connections_close_before_servers_do(
    serve: Serve, client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtimes.remote.transport.http_client.KEEPALIVE_S", 0.05)
    server = serve(lambda asked: reply())
    calls = client(server)
    calls.call("GET", "/", LONG_S)
    time.sleep(0.2)
    calls.call("GET", "/", LONG_S)
    assert server.connections == 2
