"""Bodies are read piece by piece, and no further than their limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.http.body import ClientGone, Limits, read_body
from headrace.gateway.http.refusal import HttpRefusal


class Pieces:
    """What a server gives an application, one message a call."""

    def __init__(self, pieces: Iterable[bytes], *, whole: bool = True) -> None:
        parts = list(pieces)
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": not whole or at < len(parts) - 1}
            for at, piece in enumerate(parts)
        ]
        self.read = 0

    async def receive(self) -> dict[str, Any]:
        self.read += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


def read(pieces: Pieces, most_bytes: int, length: str | None = None) -> bytes:
    return asyncio.run(read_body(pieces.receive, length, "", Limits(most_bytes)))


@given(st.lists(st.binary(max_size=10), min_size=1, max_size=6))
def test_pieces_are_put_together(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert read(Pieces(parts), max(1, len(body))) == body
    if len(body) > 1:
        with pytest.raises(HttpRefusal) as caught:
            read(Pieces(parts), len(body) - 1)
        assert caught.value.kind == "too-large"


def test_nothing_is_read_of_a_body_that_says_it_is_too_large() -> None:
    pieces = Pieces([b"x" * 10])
    with pytest.raises(HttpRefusal):
        read(pieces, 9, "10")
    assert pieces.read == 0


def test_reading_ends_when_the_limit_is_passed() -> None:
    pieces = Pieces([b"x" * 10] * 1000)
    with pytest.raises(HttpRefusal):
        read(pieces, 25)
    assert pieces.read == 3


@pytest.mark.parametrize("parts", [[], [b"half"]])
def test_a_client_that_leaves_has_no_body(parts: list[bytes]) -> None:
    with pytest.raises(ClientGone):
        read(Pieces(parts, whole=False), 100)


@pytest.mark.parametrize("length", ["", "x", "-5", "²"])
def test_a_length_that_is_none_says_nothing(length: str) -> None:
    assert read(Pieces([b"abc"]), 100, length) == b"abc"


@pytest.mark.parametrize("digits", [4, 20, 5000])
def test_a_length_may_have_any_number_of_digits(digits: int) -> None:
    with pytest.raises(HttpRefusal, match="more than 100 bytes"):
        read(Pieces([b"abc"]), 100, "1" * digits)
