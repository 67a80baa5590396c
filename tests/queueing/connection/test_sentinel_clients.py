"""Clients of servers that Sentinels watch: whom they ask, how long they wait, and what they say in vain."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import kombu
import pytest
import redis
from tests.queueing.commands import run_command
from tests.queueing.kombu_parts import channel_of
from tests.sentinels import Watched, watched_servers

from headrace.contracts.errors import BrokerUnavailable
from headrace.producers.transport.connections import connect_for_calls_async
from headrace.queueing import connect, headrace_url, translate_errors


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Servers of this module, none of whose tests stops one."""
    with watched_servers() as servers:
        yield servers


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def write_and_read(url: str) -> list[bytes | str | None]:
    """What a client, an asyncio client and the transport read of what the first has written."""

    async def read() -> bytes | str | None:
        client = connect_for_calls_async(url)
        try:
            return await client.get("greeting")
        finally:
            await client.aclose()

    with connect(url) as client:
        client.set("greeting", b"hello")
        found = client.get("greeting")
    with kombu.Connection(headrace_url(url)) as connection:
        return [found, asyncio.run(read()), channel_of(connection).client.get("greeting")]


def test_a_sentinel_that_is_away_is_passed_over(watched: Watched) -> None:
    url = f"sentinel://127.0.0.1:1;sentinel://127.0.0.1:{watched.sentinels[0]}/0?master_name=shop"
    assert write_and_read(url) == [b"hello"] * 3


def test_a_sentinel_that_is_silent_is_passed_over_soon(watched: Watched, silent_port: int) -> None:
    began = time.monotonic()
    url = f"sentinel://127.0.0.1:{silent_port};sentinel://127.0.0.1:{watched.sentinels[0]}/0?master_name=shop"
    with connect(url, silence_s=60.0) as client:
        client.ping()
        assert time.monotonic() - began < 30, "half of what silence would cost"
    assert write_and_read(url) == [b"hello"] * 3


def test_no_connection_to_a_sentinel_is_kept(watched: Watched) -> None:
    with connect(f"{watched.url('sentinel')}?master_name=shop") as client:
        client.ping()
        manager = client.connection_pool.sentinel_manager
        kept = [each for one in manager.sentinels for each in one.connection_pool._available_connections]
        assert kept
        assert all(each._sock is None for each in kept)


def test_an_unknown_name_is_one_clear_line(watched: Watched) -> None:
    with (
        connect(f"{watched.url('sentinel')}?master_name=other") as client,
        pytest.raises(BrokerUnavailable, match="other") as caught,
        translate_errors(),
    ):
        client.ping()
    assert "\n" not in caught.value.message


def test_sentinels_and_server_may_have_passwords_of_their_own(watched: Watched) -> None:
    ports = {watched.master: "server+secret", **dict.fromkeys(watched.sentinels, "sentinel secret")}
    for port, password in ports.items():
        with redis.Redis(port=port) as admin:
            run_command(admin, "ACL", "SETUSER", "default", "resetpass", f">{password}")
    try:
        addresses = watched.url("sentinel").replace("://", "://:server%2Bsecret@")
        url = f"{addresses}?master_name=shop&sentinel_password=sentinel%20secret"
        assert write_and_read(url) == [b"hello"] * 3
        with (
            connect(f"{addresses}?master_name=shop") as client,
            pytest.raises(BrokerUnavailable) as caught,
            translate_errors(),
        ):
            client.ping()
        assert "secret" not in caught.value.message
    finally:
        for port, password in ports.items():
            with redis.Redis(port=port, password=password) as admin:
                run_command(admin, "ACL", "SETUSER", "default", "nopass")


def test_tls_is_meant_for_the_server_and_checks_it() -> None:
    with connect("headraces+sentinel://127.0.0.1:1/2?master_name=shop") as client:
        made = client.connection_pool.make_connection()
        assert isinstance(made, redis.SSLConnection)
        assert (made.cert_reqs, made.db) == (2, 2)
    with connect("headraces+sentinel://127.0.0.1:1/2?master_name=shop&ssl_cert_reqs=CERT_NONE") as client:
        lax = client.connection_pool.make_connection()
        assert isinstance(lax, redis.SSLConnection)
        assert lax.cert_reqs == 0
