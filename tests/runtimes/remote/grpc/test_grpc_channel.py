"""A channel to a real server: deadlines, forks, and servers that die, hang up, speak otherwise or send too much."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.grpc.conftest import Serve, ServeRaw

from headrace.runtimes.remote.base import (
    Access,
    Address,
    BatchTooLarge,
    Misconfigured,
    Refused,
    ServerAway,
    ServerBusy,
)
from headrace.runtimes.remote.transport.grpc_channel import MAX_MESSAGE_BYTES, GrpcChannel
from headrace.runtimes.remote.transport.grpc_status import Unimplemented

ECHO = "/test.Service/Echo"
LONG_S = 30.0


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


class Connect:
    """Opens channels that close with the test."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing

    def __call__(self, address: Address, max_message_bytes: int = MAX_MESSAGE_BYTES) -> GrpcChannel:
        return self._closing(GrpcChannel(address, Access(), max_message_bytes))


@pytest.fixture
def connect(closing: Closing) -> Connect:
    return Connect(closing)


def call(channel: GrpcChannel, request: bytes = b"x", timeout_s: float = LONG_S) -> bytes:
    return channel.call(ECHO, request, timeout_s, "digits")


def test_an_answer_comes_back(serve: Serve, connect: Connect) -> None:
    assert call(connect(serve({ECHO: echo}).address), b"batch") == b"batch"


def test_several_calls_share_a_connection_side_by_side(serve: Serve, connect: Connect) -> None:
    all_here = threading.Barrier(4)

    def meet(request: bytes, context: grpc.ServicerContext) -> bytes:
        all_here.wait(LONG_S)
        return request

    channel = connect(serve({ECHO: meet}).address)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda at=at: answers.append(call(channel, b"%d" % at))) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "bad value", Refused),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", ServerBusy),
        (grpc.StatusCode.UNAVAILABLE, "shutting down", ServerAway),
    ],
)
def test_a_status_is_an_error(
    serve: Serve, connect: Connect, code: grpc.StatusCode, text: str, error: type[Exception]
) -> None:
    server = serve({ECHO: lambda request, context: context.abort(code, text)})
    with pytest.raises(error, match=f"digits at grpc://127.0.0.1:[0-9]+: {text}"):
        call(connect(server.address))


def test_a_server_that_raises_refuses_the_batch(serve: Serve, connect: Connect) -> None:
    def broken(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise ValueError("3 is no digit")

    with pytest.raises(Refused, match="3 is no digit"):
        call(connect(serve({ECHO: broken}).address))


def test_a_server_of_another_kind_is_said_to_be_one(serve: Serve, connect: Connect) -> None:
    with pytest.raises(Unimplemented, match="is it one of the runtime's kind"):
        call(connect(serve({}).address))


def test_the_wait_that_a_server_asks_for_arrives(serve: Serve, connect: Connect) -> None:
    def push_back(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "1500"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        raise AssertionError

    with pytest.raises(ServerAway) as caught:
        call(connect(serve({ECHO: push_back}).address))
    assert caught.value.retry_after_s == 1.5


def test_a_slow_server_is_left_at_the_deadline(serve: Serve, connect: Connect) -> None:
    released = threading.Event()

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        released.wait(LONG_S)
        return request

    channel = connect(serve({ECHO: slow}).address)
    with pytest.raises(ServerAway, match="no answer in time"):
        call(channel, timeout_s=0.2)
    released.set()
    assert call(channel) == b"x"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_deadline_that_has_passed_makes_no_call(connect: Connect, timeout_s: float) -> None:
    with pytest.raises(ServerAway, match="no time is left"):
        call(connect(Address("grpc", "127.0.0.1", 1)), timeout_s=timeout_s)


def test_a_server_that_dies_in_a_call_is_away_and_found_again(serve: Serve, connect: Connect) -> None:
    called = threading.Event()

    def hang(request: bytes, context: grpc.ServicerContext) -> bytes:
        called.set()
        threading.Event().wait(1.0)
        return request

    server = serve({ECHO: hang})
    channel = connect(server.address)
    errors: list[Exception] = []

    def run() -> None:
        try:
            call(channel)
        except ServerAway as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert called.wait(LONG_S)
    server.stop()
    thread.join()
    assert len(errors) == 1
    with pytest.raises(ServerAway):
        call(channel)

    again = serve({ECHO: echo}, port=server.address.port)
    assert again.address == server.address

    def answered() -> bool:
        try:
            return call(channel) == b"x"
        except ServerAway:
            return False

    assert eventually(answered, LONG_S, "the restarted server")


def test_closing_ends_the_calls_that_are_under_way(serve: Serve, connect: Connect) -> None:
    called, released = threading.Event(), threading.Event()

    def hang(request: bytes, context: grpc.ServicerContext) -> bytes:
        called.set()
        released.wait(LONG_S)
        return request

    channel = connect(serve({ECHO: hang}).address)
    errors: list[Exception] = []

    def run() -> None:
        try:
            call(channel)
        except ServerAway as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert called.wait(LONG_S)
    channel.close()
    thread.join()
    released.set()
    assert len(errors) == 1


def test_a_port_where_nobody_listens_is_away(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerAway, match="Connection refused"):
        call(connect(Address("grpc", "127.0.0.1", port)))


def test_a_name_that_does_not_exist_is_away(connect: Connect) -> None:
    with pytest.raises(ServerAway, match=r"nowhere\.invalid"):
        call(connect(Address("grpc", "nowhere.invalid", 8500)))


def test_a_server_that_hangs_up_is_away(raw: ServeRaw, connect: Connect) -> None:
    with pytest.raises(ServerAway):
        call(connect(raw().address))


def test_a_half_open_connection_ends_at_the_deadline(raw: ServeRaw, connect: Connect) -> None:
    with pytest.raises(ServerAway):
        call(connect(raw(hang_up=False).address), timeout_s=0.3)


def test_a_server_of_another_protocol_is_away(raw: ServeRaw, connect: Connect) -> None:
    with pytest.raises(ServerAway):
        call(connect(raw(b"SSH-2.0-OpenSSH_9.2\r\n").address))


def test_a_port_of_http_is_named_as_one(raw: ServeRaw, connect: Connect) -> None:
    server = raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(Misconfigured, match=f"is it http://{server.address.authority}"):
        call(connect(server.address))


def test_a_gigantic_answer_is_too_large_a_batch(serve: Serve, connect: Connect) -> None:
    channel = connect(serve({ECHO: lambda request, context: bytes(200_000)}).address, max_message_bytes=100_000)
    with pytest.raises(BatchTooLarge, match="larger than max"):
        call(channel)


def test_a_request_beyond_our_own_bound_is_too_large_a_batch(serve: Serve, connect: Connect) -> None:
    channel = connect(serve({ECHO: echo}).address, max_message_bytes=100_000)
    with pytest.raises(BatchTooLarge):
        call(channel, bytes(200_000))
    assert call(channel) == b"x"


def test_a_request_beyond_the_servers_bound_is_too_large_a_batch(serve: Serve, connect: Connect) -> None:
    channel = connect(serve({ECHO: echo}).address)
    with pytest.raises(BatchTooLarge):
        call(channel, bytes((4 << 20) + 1))
    assert call(channel) == b"x"


def test_answers_above_the_limit_of_grpc_itself_arrive(serve: Serve, connect: Connect) -> None:
    answer = bytes(10 << 20)
    assert call(connect(serve({ECHO: lambda request, context: answer}).address)) == answer


def test_a_reopened_channel_has_a_new_connection_and_calls_under_way_end_on_the_old_one(
    serve: Serve, connect: Connect
) -> None:
    here, go_on = threading.Event(), threading.Event()
    peers: list[str] = []

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        peers.append(context.peer())
        if request == b"slow":
            here.set()
            go_on.wait(LONG_S)
        return request

    channel = connect(serve({ECHO: slow}).address)
    channel.reopen()
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(call(channel, b"slow")))
    thread.start()
    assert here.wait(LONG_S)
    channel.reopen()
    assert call(channel) == b"x"
    go_on.set()
    thread.join()
    assert answers == [b"slow"]
    assert call(channel) == b"x"
    assert peers[0] != peers[1] == peers[2]


def test_credentials_go_with_every_call(serve: Serve, closing: Closing) -> None:
    def who(request: bytes, context: grpc.ServicerContext) -> bytes:
        return str(dict(context.invocation_metadata()).get("authorization")).encode()

    server = serve({ECHO: who})
    assert call(closing(GrpcChannel(server.address, Access(authorization="Bearer secret")))) == b"Bearer secret"
    assert call(closing(GrpcChannel(server.address, Access()))) == b"None"


def test_credentials_that_a_server_quotes_are_hidden(serve: Serve, closing: Closing) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, str(dict(context.invocation_metadata())["authorization"]))

    channel = closing(GrpcChannel(serve({ECHO: refuse}).address, Access(authorization="Bearer s3cret")))
    with pytest.raises(Misconfigured, match=r": Bearer \[hidden\]") as caught:
        call(channel)
    assert "s3cret" not in str(caught.value)


def test_proxies_of_the_environment_are_left_out(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert call(connect(serve({ECHO: echo}).address)) == b"x"


#: Calls, forks, and calls in the child, which must neither hang nor use the parent's connection.
FORK = """
import os, sys
from headrace.runtimes.remote.base import Access, Address
from headrace.runtimes.remote.transport.grpc_channel import GrpcChannel
channel = GrpcChannel(Address("grpc", "127.0.0.1", int(sys.argv[1])), Access())
def call(request):
    return channel.call("/test.Service/Echo", request, 30.0, "digits")
for generation in range(3):
    if len(sys.argv) > 2:
        assert call(b"parent") == b"parent"
    child = os.fork()
    if child == 0:
        assert call(b"child") == b"child"
        channel.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(b"after") == b"after"
channel.close()
"""


@pytest.mark.parametrize("used", [[], ["before the fork"]])
def test_a_channel_works_in_forked_processes(serve: Serve, used: list[str], tmp_path: Path) -> None:
    port = str(serve({ECHO: echo}).address.port)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, port, *used]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
