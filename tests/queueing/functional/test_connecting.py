"""Connecting, closing and connecting again; servers that aren't there or refuse."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import kombu
import pytest
import redis
from kombu.exceptions import OperationalError
from tests.queueing.kombu_parts import ssl_of

from headrace.queueing import headrace_url
from headrace.queueing.transport import Transport


@pytest.fixture
def nobody() -> kombu.Connection:
    """A connection to a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return kombu.Connection(f"headrace://127.0.0.1:{port}/0")


def test_a_connection_opens_closes_and_opens_again(connection: kombu.Connection) -> None:
    for _ in range(2):
        assert connection.connect()
        assert connection.connected
        connection.close()
        assert not connection.connected
    assert connection.default_channel
    assert connection.channel() is not connection.channel()


def test_a_server_that_is_not_there_is_a_connection_error(nobody: kombu.Connection) -> None:
    for attempt in (nobody.connect, nobody.channel, lambda: nobody.connection):
        with pytest.raises(Transport.connection_errors):
            attempt()
    with pytest.raises(redis.ConnectionError):
        nobody.connect()
    nobody.transport_options = {"max_retries": 1}
    with pytest.raises(OperationalError):
        nobody.default_channel  # noqa: B018 — it connects
    with pytest.raises(OperationalError):
        nobody.ensure_connection(max_retries=1, interval_start=0)


def test_wrong_credentials_are_refused(broker_url: str) -> None:
    url = headrace_url(broker_url).replace("://", "://nobody:wrong@")
    with kombu.Connection(url) as connection, pytest.raises(redis.AuthenticationError):
        connection.connect()


def test_a_server_that_does_not_accept_in_time_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        options = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
        with (
            kombu.Connection(f"headrace://127.0.0.1:{port}/0", transport_options=options) as connection,
            pytest.raises((redis.TimeoutError, redis.ConnectionError)) as caught,
        ):
            connection.connect()
        assert isinstance(caught.value, Transport.connection_errors)


def test_tls_is_checked_unless_the_url_says_otherwise() -> None:
    assert ssl_of(kombu.Connection("headraces://127.0.0.1:1/0")) == {"ssl_cert_reqs": 2}
    chosen = kombu.Connection("headraces://127.0.0.1:1/0?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert ssl_of(chosen) == {"ssl_cert_reqs": 0, "ssl_check_hostname": False}


def test_a_channel_whose_connection_is_closed_says_so_by_a_connection_error(broker_url: str) -> None:
    with kombu.Connection(headrace_url(broker_url)) as connection:
        channel: Any = connection.channel()
        connection.collect()
        with pytest.raises(connection.connection_errors, match="closed"):
            assert channel.subclient


PUBLISH = """
import sys
import kombu
{remedy}
with kombu.Connection(sys.argv[1]{argument}) as connection:
    connection.default_channel.queue_declare("alone")
    print(type(connection.transport).__module__)
"""


@pytest.mark.parametrize(
    ("remedy", "argument"),
    [
        ("import kombu.serialization", ""),
        ("from kombu import Producer", ""),
        ("import headrace.queueing", ""),
        ("", ', transport="headrace.queueing.transport:Transport"'),
    ],
)
def test_kombu_without_celery_knows_the_scheme_after_one_line(broker_url: str, remedy: str, argument: str) -> None:
    url = headrace_url(broker_url) if remedy else broker_url
    program = PUBLISH.format(remedy=remedy, argument=argument)
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("headrace.queueing.transport\n", 0), done.stderr


def test_kombu_has_no_plug_ins_by_which_it_could_know_the_scheme_before(broker_url: str) -> None:
    # When this fails kombu has got them, and docs/decisions/0003 has a better answer.
    program = PUBLISH.format(remedy="", argument="")
    done = subprocess.run(
        [sys.executable, "-c", program, headrace_url(broker_url)], capture_output=True, text=True, check=False
    )
    assert "No such transport: headrace" in done.stderr
    assert done.returncode == 1
