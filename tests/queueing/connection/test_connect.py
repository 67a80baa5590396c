"""Broker URLs and the errors of their servers."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from kombu import Connection
from tests.queueing.kombu_parts import ssl_of

from headrace.cli.stack.servers import Valkey
from headrace.contracts.errors import BrokerUnavailable, ConfigurationError
from headrace.queueing import CommandLine, connect, headrace_url, redis_url, translate_errors


@pytest.mark.parametrize(
    ("given", "plain", "ours"),
    [
        ("redis://h:1/2", "redis://h:1/2", "headrace://h:1/2"),
        ("headrace://:pw@h:1/2", "redis://:pw@h:1/2", "headrace://:pw@h:1/2"),
        ("rediss://h/0", "rediss://h/0", "headraces://h/0"),
        (
            "headraces://h/0?ssl_cert_reqs=CERT_NONE",
            "rediss://h/0?ssl_cert_reqs=none",
            "headraces://h/0?ssl_cert_reqs=CERT_NONE",
        ),
        ("unix:///run/r.sock?db=3", "unix:///run/r.sock?db=3", "headrace+socket:///run/r.sock?virtual_host=3"),
        (
            "headrace+socket:///run/r.sock?virtual_host=3",
            "unix:///run/r.sock?db=3",
            "headrace+socket:///run/r.sock?virtual_host=3",
        ),
    ],
)
def test_urls_convert_both_ways(given: str, plain: str, ours: str) -> None:
    assert redis_url(given) == plain
    assert headrace_url(given) == ours


@pytest.mark.parametrize("url", ["amqp://user:secret@host", "secret@host", "", "redis://h/seven?socket_timeout=secret"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(url)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("convert", [redis_url, headrace_url])
def test_a_client_is_had_by_either_url(broker_url: str, convert: object) -> None:
    assert callable(convert)
    with connect(convert(broker_url)) as client:
        client.set("a", 1)
        assert client.get("a") == b"1"


def test_a_server_that_is_away_is_one_clear_line() -> None:
    with (
        connect("redis://:secret@127.0.0.1:1/0") as client,
        pytest.raises(BrokerUnavailable) as caught,
        translate_errors(),
    ):
        client.ping()
    assert "HEADRACE_BROKER_URL" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_credentials_that_are_refused_are_said_to_be(broker_url: str) -> None:
    with (
        connect(broker_url.replace("://", "://nobody:secret@")) as client,
        pytest.raises(BrokerUnavailable, match="credentials") as caught,
        translate_errors(),
    ):
        client.ping()
    assert "secret" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(redis.ResponseError), translate_errors():
        raise redis.ResponseError("WRONGTYPE")


def test_tls_is_meant_by_headraces_and_checks_the_server_unless_told_otherwise() -> None:
    strict = Connection("headraces://host:1/0")
    assert ssl_of(strict) == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    lax = Connection("headraces://host:1/0?ssl_cert_reqs=CERT_NONE")
    assert ssl_of(lax) == {"ssl_cert_reqs": ssl.CERT_NONE}
    assert not ssl_of(Connection("headrace://host:1/0"))


def test_importing_kombu_stays_light_and_knows_us() -> None:
    code = (
        "import sys, kombu.serialization as s, kombu.transport as t\n"
        "assert t.TRANSPORT_ALIASES['headrace'] == t.TRANSPORT_ALIASES['headraces']\n"
        "assert 'application/x-headrace-tensors' in s.registry._decoders\n"
        "heavy = {'numpy', 'redis', 'pydantic', 'sqlalchemy', 'headrace.contracts'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import headrace.queueing.transport\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_command_line_gives_every_answer_and_what_was_refused_among_them(broker_url: str) -> None:
    with connect(broker_url) as client:
        line = CommandLine(client)
        pushed, refused, length = line.run([("RPUSH", "list", "a"), ("INCR", "list"), ("LLEN", "list")])
        assert (pushed, length) == (1, 1)
        assert isinstance(refused, redis.ResponseError)
        assert line.run([("LPOP", "list")]) == [b"a"]
        line.close()
        assert line.run([("PING",)]) == [b"PONG"]
        line.close()


def test_a_command_line_notices_before_it_sends_that_its_connection_has_ended(broker_url: str) -> None:
    with connect(broker_url) as client, connect(broker_url) as other:
        line = CommandLine(client)
        for count in (1, 2):
            assert line.run([("INCR", "count")]) == [count]
            other.client_kill_filter(_type="normal", skipme=True)
        line.close()


@pytest.mark.server
def test_a_command_line_works_again_when_its_server_does(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server, connect(server.url) as client:
        line = CommandLine(client)
        line.run([("SET", "a", "1")])
        server.stop()
        with pytest.raises(BrokerUnavailable), translate_errors():
            line.run([("GET", "a")])
        server.start()
        assert line.run([("PING",)]) == [b"PONG"]
        line.close()
