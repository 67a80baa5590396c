"""A real server whose port is encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.runtimes.remote.certificates import Certificate, certificate
from tests.servers.process import ModelServer
from tests.servers.triton.start import triton

from headrace.runtimes.remote.base import Access, Connection, Misconfigured, parse_address
from headrace.runtimes.remote.oip.grpc import OipGrpc

TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certified: Certificate) -> Iterator[ModelServer]:
    """A Triton whose gRPC port is encrypted, and lets in only clients with a certificate."""
    files = [f"--grpc-server-cert={certified.cert}", f"--grpc-server-key={certified.key}"]
    mutual = ["--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1", f"--grpc-root-cert={certified.cert}", *files]
    running = triton(tmp_path_factory.mktemp("triton"), ("affine",), tuple(mutual))
    running.start()
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def infer(server: ModelServer, scheme: str, access: Access) -> None:
    address = server.addresses["grpc"].replace("grpc://", f"{scheme}://")
    connection: Connection = OipGrpc(parse_address(address), "affine", access=access)
    x = np.ones((2, 4), np.float32)
    try:
        np.testing.assert_array_equal(connection.infer({"x": x}, ["y"], TIMEOUT_S).outputs["y"], x * 2 + 1)
    finally:
        connection.close()


def test_both_sides_are_verified(server: ModelServer, certified: Certificate) -> None:
    access = Access(ca_file=str(certified.cert), cert_file=str(certified.cert), key_file=str(certified.key))
    infer(server, "grpcs", access)


def test_a_server_of_an_unknown_authority_is_refused_by_us(
    server: ModelServer, certified: Certificate, tmp_path: Path
) -> None:
    other = certificate(tmp_path / "other")
    access = Access(ca_file=str(other.cert), cert_file=str(certified.cert), key_file=str(certified.key))
    with pytest.raises(Misconfigured, match="certificate"):
        infer(server, "grpcs", access)


def test_plain_text_on_an_encrypted_port_says_so(server: ModelServer) -> None:
    with pytest.raises(Misconfigured, match="TLS"):
        infer(server, "grpc", Access())
