"""Objects read by ranges give the bytes that are there, and little else is fetched."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.storage.ranged import LARGEST_AHEAD, SMALLEST, RangedFile
from headrace.bulk.storage.reading import InputReader

CONTENT = os.urandom(3_000_000)


class Object:
    """Ranges of the content, and how often they were asked for."""

    def __init__(self) -> None:
        self.fetched: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> memoryview:
        assert 0 <= start < stop <= len(CONTENT)
        self.fetched.append((start, stop))
        return memoryview(CONTENT)[start:stop]

    def open(self) -> InputReader:
        return InputReader(RangedFile("s3://b/k", len(CONTENT), self.fetch))


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(-1, 400_000)), max_size=8))
def test_any_reads_give_the_bytes_that_are_there(reads: list[tuple[int, int]]) -> None:
    kept = Object()
    with kept.open() as file:
        for position, size in reads:
            file.seek(position)
            stop = len(CONTENT) if size < 0 else position + size
            assert file.read(size) == CONTENT[position:stop]
            assert file.tell() == min(stop, max(position, len(CONTENT)))
        assert file.bytes_read == sum(stop - start for start, stop in kept.fetched)


def test_reading_in_sequence_takes_few_requests_and_each_byte_once() -> None:
    kept = Object()
    with kept.open() as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == CONTENT
        assert file.bytes_read == len(CONTENT)
    assert len(kept.fetched) < 10


def test_large_reads_fetch_nothing_else() -> None:
    kept = Object()
    with kept.open() as file:
        file.seek(100_000)
        assert len(file.read(2 * LARGEST_AHEAD - 500_000)) == 2 * LARGEST_AHEAD - 500_000
        assert file.bytes_read < 2 * LARGEST_AHEAD - 500_000 + 4 * SMALLEST


def test_little_is_fetched_beyond_the_end_of_a_slice() -> None:
    kept = Object()
    with kept.open() as file:
        file.limit(2_000_000)
        file.seek(1_000_000)
        while file.tell() < 2_000_000:
            file.read(10_000)
        assert file.bytes_read <= 1_000_000 + 4 * SMALLEST
