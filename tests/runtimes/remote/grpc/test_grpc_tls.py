"""TLS over gRPC: certificates are checked both ways, and what is wrong with them is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from tests.runtimes.remote.certificates import Certificate, certificate, expired
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.grpc.conftest import Serve

from headrace.runtimes.remote.base import Access, Address, Misconfigured, ServerAway
from headrace.runtimes.remote.transport.grpc_channel import GrpcChannel

ECHO = "/test.Service/Echo"
LONG_S = 30.0

#: A call over a channel of its own, which closes with the test.
Call: TypeAlias = Callable[[Address, Access], bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("other"))


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def credentials(certificate: Certificate, clients: Certificate | None = None) -> grpc.ServerCredentials:
    pair = (certificate.key.read_bytes(), certificate.cert.read_bytes())
    return grpc.ssl_server_credentials([pair], clients.cert.read_bytes() if clients else None, clients is not None)


@pytest.fixture
def call(closing: Closing) -> Call:
    return lambda address, access: closing(GrpcChannel(address, access)).call(ECHO, b"safe", LONG_S, "digits")


def test_an_authority_of_ones_own_is_trusted(serve: Serve, call: Call, good: Certificate) -> None:
    server = serve({ECHO: echo}, credentials(good))
    assert call(server.address, Access(ca_file=str(good.cert))) == b"safe"


def test_an_expired_certificate_is_refused(serve: Serve, call: Call, tmp_path: Path) -> None:
    old = expired(tmp_path / "old")
    server = serve({ECHO: echo}, credentials(old))
    with pytest.raises(Misconfigured, match="the server's certificate is refused: certificate has expired; renew it"):
        call(server.address, Access(ca_file=str(old.cert)))


@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_of_nobody_known_is_refused(
    serve: Serve, call: Call, good: Certificate, other: Certificate, known: bool
) -> None:
    server = serve({ECHO: echo}, credentials(good))
    with pytest.raises(Misconfigured, match=r"certificate is refused: .*HEADRACE_SERVER_CA_FILE"):
        call(server.address, Access(ca_file=str(other.cert) if known else ""))


def test_a_server_that_asks_for_a_certificate_gets_it(
    serve: Serve, call: Call, good: Certificate, other: Certificate
) -> None:
    server = serve({ECHO: echo}, credentials(good, clients=other))
    access = Access(ca_file=str(good.cert), cert_file=str(other.cert), key_file=str(other.key))
    assert call(server.address, access) == b"safe"
    with pytest.raises(ServerAway, match="it may ask for a client certificate"):
        call(server.address, Access(ca_file=str(good.cert)))


def test_plain_text_on_a_tls_port_is_said_to_be_that(serve: Serve, call: Call, good: Certificate) -> None:
    port = serve({ECHO: echo}, credentials(good)).address.port
    with pytest.raises(Misconfigured, match=f"speaks TLS on that port; write grpcs://127.0.0.1:{port}"):
        call(Address("grpc", "127.0.0.1", port), Access())


def test_tls_on_a_port_of_plain_text_is_said_to_be_that(serve: Serve, call: Call) -> None:
    port = serve({ECHO: echo}).address.port
    with pytest.raises(Misconfigured, match=f"doesn't speak TLS on that port; is it grpc://127.0.0.1:{port}"):
        call(Address("grpcs", "127.0.0.1", port), Access())


def test_a_file_of_certificates_that_is_missing_is_named(call: Call, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"missing\.pem can't be read: No such file"):
        call(Address("grpcs", "127.0.0.1", 1), Access(ca_file=str(tmp_path / "missing.pem")))


def test_a_file_that_holds_no_certificate_is_said_to_be_that(
    serve: Serve, call: Call, good: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    server = serve({ECHO: echo}, credentials(good))
    with pytest.raises(Misconfigured, match="holds no certificate or key"):
        call(server.address, Access(ca_file=str(tmp_path / "ca.pem")))
