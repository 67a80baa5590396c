"""HTTP calls end in time and in size, whatever the server does, and say what happened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.eventually import eventually
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import NewClient, Serve
from tests.runtimes.remote.http.scripted import Asked, reply

from headrace.runtimes.remote.base import Access, Address, BatchTooLarge, Misconfigured, ServerAway, parse_address
from headrace.runtimes.remote.encoding.raw import Buffer
from headrace.runtimes.remote.transport.http_client import HttpClient

#: Ends a call in tests that must not hang; nothing is said about speed.
LONG_S = 30.0
SHORT_S = 0.3


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


def test_calls_run_side_by_side(serve: Serve, client: NewClient) -> None:
    together = threading.Barrier(8)
    server = serve(lambda asked: (together.wait(LONG_S), reply())[1])
    calls = client(server)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: calls.call("GET", "/", LONG_S).status, range(8)))
    assert answers == [200] * 8


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
