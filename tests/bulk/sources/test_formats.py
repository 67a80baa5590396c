"""Formats are told by names; what can't be told is said with what is known."""

from __future__ import annotations

import pytest

from headrace.bulk.sources.base import UnknownFormat
from headrace.bulk.sources.formats import FORMATS, SUFFIXES, format_of, source_of


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/a/b.parquet", "parquet"),
        ("s3://bucket/with space/ü.PARQUET", "parquet"),
        ("/a/b.csv", "csv"),
        ("/a/b.csv.gz", "csv"),
        ("/a/b.tsv.zst", "tsv"),
        ("/a/b.jsonl.GZ", "jsonl"),
        ("/a/b.ndjson", "jsonl"),
        ("/a/b.json", "jsonl"),
        ("/a/b.feather", "arrow"),
        ("/a/b.npy", "npy"),
        ("/a/b.npz", "npz"),
        ("/a/b.v2.JPeG", "image"),
    ],
)
def test_the_format_is_told_by_the_suffix(uri: str, name: str) -> None:
    assert format_of(uri) == name


@pytest.mark.parametrize("uri", ["/a/b.xlsx", "/a.csv/b", "/a/b", "/a/.parquet", "/a/b.gz", ""])
def test_an_unknown_suffix_is_an_error_that_lists_the_known_ones(uri: str) -> None:
    with pytest.raises(UnknownFormat, match=r"can't be told by its name; known are \.parquet, .*--input-format"):
        format_of(uri)


def test_an_unknown_format_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownFormat, match="no input format 'orc'; known are parquet, csv"):
        source_of("/a/b.orc", "orc")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_source(name: str) -> None:
    assert source_of("/a/b", name)


def test_every_suffix_is_of_a_format() -> None:
    assert set(SUFFIXES.values()) <= set(FORMATS)
