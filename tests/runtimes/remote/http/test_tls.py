"""TLS: certificates are checked both ways, and what is wrong with them is said in one line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.runtimes.remote.certificates import Certificate, certificate, expired
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import reply

from headrace.runtimes.remote.base import Access, Address, Misconfigured, ServerAway
from headrace.runtimes.remote.transport.http_client import HttpClient
from headrace.runtimes.remote.transport.http_reply import Reply

LONG_S = 30.0

#: A call by a client of its own, which closes with the test.
Call: TypeAlias = Callable[[Address, Access], Reply]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("other"))


@pytest.fixture
def call(closing: Closing) -> Call:
    return lambda address, access: closing(HttpClient(address, access)).call("POST", "/", LONG_S, [b"x"])


def test_an_authority_of_ones_own_is_trusted(serve: Serve, call: Call, good: Certificate) -> None:
    server = serve(lambda asked: reply(200, b"safe"), good.server_context())
    assert bytes(call(server.address, Access(ca_file=str(good.cert))).body) == b"safe"


def test_an_expired_certificate_is_refused(serve: Serve, call: Call, tmp_path: Path) -> None:
    old = expired(tmp_path / "old")
    server = serve(lambda asked: reply(), old.server_context())
    with pytest.raises(Misconfigured, match="its certificate is refused: certificate has expired"):
        call(server.address, Access(ca_file=str(old.cert)))
    assert server.asked == []


@pytest.mark.parametrize("authority", ["", "other"])
def test_a_certificate_of_nobody_known_is_refused(
    serve: Serve, call: Call, good: Certificate, other: Certificate, authority: str
) -> None:
    server = serve(lambda asked: reply(), good.server_context())
    with pytest.raises(Misconfigured, match=r"self-signed certificate.*HEADRACE_SERVER_CA_FILE"):
        call(server.address, Access(ca_file=str(other.cert) if authority else ""))


def test_a_certificate_of_another_host_is_refused(serve: Serve, call: Call, good: Certificate) -> None:
    server = serve(lambda asked: reply(), good.server_context())
    # Another address of this machine, which the certificate doesn't name.
    address = Address("https", "0.0.0.0", server.address.port)
    with pytest.raises(Misconfigured, match="IP address mismatch"):
        call(address, Access(ca_file=str(good.cert)))


def test_a_client_certificate_opens_the_door(serve: Serve, call: Call, good: Certificate, other: Certificate) -> None:
    server = serve(lambda asked: reply(200, b"hello"), good.server_context(clients=other))
    access = Access(ca_file=str(good.cert), cert_file=str(other.cert), key_file=str(other.key))
    assert bytes(call(server.address, access).body) == b"hello"


def test_without_its_client_certificate_a_door_stays_shut(
    serve: Serve, call: Call, good: Certificate, other: Certificate
) -> None:
    server = serve(lambda asked: reply(), good.server_context(clients=other))
    with pytest.raises((Misconfigured, ServerAway)) as caught:
        call(server.address, Access(ca_file=str(good.cert)))
    assert server.asked == []
    assert "\n" not in str(caught.value)


def test_plain_text_on_a_tls_port_is_named(serve: Serve, call: Call) -> None:
    server = serve(lambda asked: reply())
    with pytest.raises(Misconfigured, match=r"doesn't speak TLS on that port; is it http://127\.0\.0\.1:\d+\?"):
        call(Address("https", "127.0.0.1", server.address.port), Access())


def test_a_server_that_hangs_up_on_tls_may_speak_plain_text(call: Call) -> None:
    def hang_up(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        with pytest.raises(ServerAway, match="hung up on TLS; is it http://"):
            call(Address("https", "127.0.0.1", listener.getsockname()[1]), Access())
        thread.join()


def test_plain_text_for_a_tls_port_is_named(serve: Serve, call: Call, good: Certificate) -> None:
    server = serve(lambda asked: reply(), good.server_context())
    with pytest.raises(Misconfigured, match=r"speaks TLS on that port; write https://127\.0\.0\.1:\d+$"):
        call(Address("http", "127.0.0.1", server.address.port), Access())


@pytest.mark.parametrize("which", ["ca_file", "cert_file"])
def test_a_missing_file_is_named(call: Call, which: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "gone.pem")
    with pytest.raises(Misconfigured, match=r"gone\.pem can't be loaded"):
        call(Address("https", "127.0.0.1", 1), Access(**{which: missing}))
