"""Canonical locations are the same for the same place, and hold no credentials."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.storage.base import BadLocation
from headrace.bulk.storage.uris import BEHIND, canonical, join, relative, split

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("given_as", "meant"),
    [
        ("rows.csv", "/srv/me/rows.csv"),
        ("./a/../b//c/", "/srv/me/b/c"),
        ("../../../../etc", "/etc"),
        ("/data/é ü/", "/data/é ü"),
        ("//data", "/data"),
        ("/", "/"),
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("s3://bucket/a b/é%20/", "s3://bucket/a b/é%20"),
        ("S3A://Bucket/Key", "s3://Bucket/Key"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("gcs://b/k", "gs://b/k"),
        ("abfss://container@account.dfs.core.windows.net/k", "abfss://container@account.dfs.core.windows.net/k"),
        ("https://Host.example/a?b=c", "https://host.example/a?b=c"),
        ("hf://datasets/imdb/x.parquet", "hf://datasets/imdb/x.parquet"),
        ("sftp://user@host/data", "sftp://user@host/data"),
        ("s3://bucket/day=1/key=2?.csv", "s3://bucket/day=1/key=2?.csv"),
        ("C:/data", "/srv/me/C:/data"),
    ],
)
def test_locations_are_written_in_one_way(given_as: str, meant: str) -> None:
    assert canonical(given_as, "/srv/me") == meant
    assert canonical(meant) == meant


@pytest.mark.parametrize(
    "uri",
    ["s3://key:hunter2@bucket/x", "sftp://me:hunter2@host/x", "https://hunter2@host/x", "s3://hunter2@bucket/x",
     "https://a.blob.core.windows.net/c/x?sv=1&sig=hunter2", "https://b.s3.amazonaws.com/x?X-Amz-Signature=hunter2",
     "https://host/x?access_token=hunter2", "az://c/x?sv=2020&sig=hunter2"],
)  # fmt: skip
def test_credentials_in_a_location_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(BadLocation, match="environment") as caught:
        canonical(uri)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "  ",
        "a\0b",
        "s3:///key",
        "s3://b/a//c",
        "s3://b/a/../c",
        "s3://b/./c",
        "file://other/x",
        "https://h/a/../b",
        "https://h/a/%2e%2E/b",
        "bad\udcff.csv",
    ],
)
def test_what_names_no_place_is_refused(uri: str) -> None:
    with pytest.raises(BadLocation):
        canonical(uri)


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_a_local_path_is_canonical_once_and_for_all(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    found = canonical(path)
    assert canonical(found) == found == os.path.normpath(path)
    assert split(found).is_local


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_keys_of_objects_keep_every_letter(parts: list[str]) -> None:
    uri = "s3://bucket/" + "/".join(parts)
    try:
        found = canonical(uri)
    except BadLocation:
        assert {"", ".", ".."} & set(parts) or "?" in uri or "@" in uri
        return
    assert found == canonical(found) == uri
    assert split(uri).path == "/".join(parts)


@given(st.lists(PARTS, min_size=1, max_size=3), st.lists(PARTS, min_size=1, max_size=3), PARTS)
def test_a_cursor_lies_among_names_as_it_does_among_uris(folder: list[str], after: list[str], name: str) -> None:
    base, cursor = "s3://b/" + "/".join(folder), "s3://b/" + "/".join(after)
    assert (name > relative(base, cursor)) == (join(base, name) > cursor)
    assert name < BEHIND
