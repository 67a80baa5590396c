"""Broker URLs that name Sentinels, and how others read them."""

from __future__ import annotations

import ssl

import pytest

from headrace.contracts.errors import ConfigurationError
from headrace.queueing import connect, headrace_url, redis_url, sentinels_of, tls_options
from headrace.queueing.connection.broker_url import SentinelAddress

TWO = (("one", 26379), ("two", 26380))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sentinel://one;sentinel://two:26380/0?master_name=shop", SentinelAddress(TWO, "shop")),
        ("headrace+sentinel://one/3;headrace+sentinel://two:26380/3?master_name=shop", SentinelAddress(TWO, "shop", 3)),
        ("redis+sentinel://one?master_name=a", SentinelAddress((("one", 26379),), "a")),
        (
            "headraces+sentinel://me:p%3Bw@one;sentinel://two:26380/1?master_name=shop&ssl_cert_reqs=CERT_NONE",
            SentinelAddress(TWO, "shop", 1, {"username": "me", "password": "p;w"}, {"ssl_cert_reqs": "none"}),
        ),
        (
            "rediss+sentinel://:pw@one?master_name=a&sentinel_password=x%20y&ssl_check_hostname=false",
            SentinelAddress(
                (("one", 26379),), "a", 0, {"password": "pw"}, {"ssl_check_hostname": False}, {"password": "x y"}
            ),
        ),
        ("redis://one/0?master_name=shop", None),
        ("unix:///run/one.sock", None),
    ],
)
def test_sentinels_are_read(url: str, expected: SentinelAddress | None) -> None:
    assert sentinels_of(url) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sentinel://:secret@one", "needs the name of the server that they watch"),
        ("sentinel://one;redis://:secret@two?master_name=a", "other servers"),
        ("sentinel://:secret@one;two:26379?master_name=a", "other servers"),
        ("sentinel://:secret@one:many?master_name=a", "can't be read"),
        ("sentinel://:secret@one/secret?master_name=a", "can't be read"),
        ("sentinel://:secret@[one?master_name=a", "can't be read"),
        ("sentinel://one?password=secret&master_name=a", "after the question mark"),
    ],
)
def test_urls_of_sentinels_that_can_not_be_are_refused_in_one_line_without_their_password(url: str, says: str) -> None:
    for read in (connect, sentinels_of, headrace_url, tls_options):
        with pytest.raises(ConfigurationError, match=says) as caught:
            read(url)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_address_hides_its_passwords() -> None:
    found = sentinels_of("sentinel://:hidden@one?master_name=a&sentinel_password=hidden")
    assert found is not None
    assert "hidden" not in repr(found)


def test_the_transport_reads_what_the_settings_may_name() -> None:
    assert (
        headrace_url("sentinel://:pw@one;sentinel://two/0?master_name=a")
        == "headrace+sentinel://:pw@one;headrace+sentinel://two/0?master_name=a"
    )
    assert headrace_url("rediss+sentinel://one?master_name=a") == "headraces+sentinel://one?master_name=a"


def test_tls_to_the_master_is_checked_unless_the_url_says_otherwise() -> None:
    assert tls_options("sentinel://one?master_name=a") is None
    assert tls_options("headraces+sentinel://one?master_name=a") == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    lax = "headraces+sentinel://one;sentinel://two?master_name=a&ssl_cert_reqs=none"
    assert tls_options(lax) == {"ssl_cert_reqs": ssl.CERT_NONE}


def test_there_is_no_plain_url_for_sentinels() -> None:
    with pytest.raises(ConfigurationError, match="scheme"):
        redis_url("sentinel://one?master_name=a")
