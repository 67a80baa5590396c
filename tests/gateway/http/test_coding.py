"""Compressed bodies come out whole or are refused, and never grow beyond the limit."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.http.coding import BadCoding, TooLong, UnknownCoding, accepted, decoded, encoded


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_encoded_is_decoded(body: bytes, coding: str) -> None:
    packed = encoded(body, coding)
    if packed is None:
        assert len(body) < 1024
    else:
        assert decoded(packed, coding, len(body)) == body


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_decoded_or_refused(body: bytes, coding: str) -> None:
    with contextlib.suppress(BadCoding, TooLong):
        decoded(body, coding, 100)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_limit_is_exact(coding: str) -> None:
    packed = encoded(bytes(2000), coding)
    assert packed is not None
    assert decoded(packed, coding, 2000) == bytes(2000)
    with pytest.raises(TooLong):
        decoded(packed, coding, 1999)


def test_a_bomb_takes_no_more_than_the_limit() -> None:
    inner = zlib.compress(bytes(100 << 20), 9)
    with pytest.raises(TooLong):
        decoded(inner, "deflate", 1000)


@pytest.mark.parametrize(
    "body",
    [b"", gzip.compress(b"abc")[:-1], gzip.compress(b"abc") * 2, b"\x1f\x8b"],
    ids=["nothing", "cut off", "twice", "half a head"],
)
def test_half_a_body_and_more_than_one_are_refused(body: bytes) -> None:
    with pytest.raises(BadCoding):
        decoded(body, "gzip", 1000)


def test_codings_are_found_in_any_spelling() -> None:
    assert decoded(b"x", " Identity ", 10) == b"x"
    assert decoded(gzip.compress(b"x"), "GZIP", 10) == b"x"
    with pytest.raises(UnknownCoding, match="'br'"):
        decoded(b"x", "br", 10)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("br, deflate, gzip", "deflate"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("gzip;q=0.000", ""),
        ("gzip;q=1.0", "gzip"),
        ("identity, *", ""),
        ("GZip ; q=0.8", "gzip"),
    ],
)
def test_the_answer_is_in_the_first_coding_that_is_accepted(header: str, coding: str) -> None:
    assert accepted(header) == coding
