"""Globs match as in a shell, and no folder that may hold a match is left out."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.storage.base import BadLocation, InputMissing, RootRefused
from headrace.bulk.storage.globs import Glob, expand, is_glob
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.ordering import is_hidden
from headrace.bulk.storage.roots import Roots

NAMES = (
    "a.csv", "b.csv", "_SUCCESS", ".x.csv", "x y.csv", "é.parquet", "[1].csv", "day=1/a.csv", "day=1/b/c.csv",
    "day=2/a.csv", "_tmp/a.csv", "day=1/.y/a.csv", "a/a/a/a.csv", "A.CSV", "nl\nx.csv",
)  # fmt: skip


def matched(folder: Path, pattern: str, after: str = "") -> list[str]:
    storage = open_storage(str(folder), Roots([str(folder)]))
    pages = expand(f"{folder}/{pattern}", storage, after)
    return [info.uri.removeprefix(f"{folder}/") for page in pages for info in page]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*.csv", "?.csv", "**/*.csv", "**/a.csv", "day=[1-9]/**", "**", "*/*", "[!a].csv", "[[]1].csv", "x y*", "_*", ".*",
     "**/a/**/*.csv", "day=?/*.csv", "[ab].csv"],
)  # fmt: skip
def test_a_glob_matches_what_python_matches_in_the_order_of_paths(folder: Path, pattern: str) -> None:
    wanted = []
    for name in set(glob.glob(pattern, root_dir=folder, recursive=True)):  # noqa: PTH207
        hidden = [part for part in name.split("/") if part.startswith("_")]
        if (folder / name).is_file() and (not hidden or pattern.startswith("_")):
            wanted.append(name)
    wanted.sort(key=str.encode)
    assert wanted
    assert matched(folder, pattern) == wanted
    assert matched(folder, pattern, after=f"{folder}/{wanted[0]}") == wanted[1:]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    assert matched(folder, "[1].csv") == ["[1].csv"]


def test_a_named_file_is_taken_even_if_hidden(folder: Path) -> None:
    assert matched(folder, "_SUCCESS") == ["_SUCCESS"]
    assert matched(folder, "_SUCCESS", after=f"{folder}/_SUCCESS") == []


def test_a_folder_is_its_visible_files(folder: Path) -> None:
    assert matched(folder, "") == sorted((name for name in NAMES if not is_hidden(name)), key=str.encode)


@pytest.mark.parametrize("pattern", ["*.parquet.gz", "none", "none/**"])
def test_what_matches_nothing_is_said(folder: Path, pattern: str) -> None:
    with pytest.raises(InputMissing, match=r"none|gz"):
        matched(folder, pattern)


def test_a_range_the_wrong_way_round_is_said(folder: Path) -> None:
    with pytest.raises(BadLocation, match="no glob"):
        matched(folder, "[z-a].csv")


def test_links_are_followed_within_the_roots_but_not_round_in_circles(folder: Path) -> None:
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "day=1" / "other").symlink_to(folder / "day=2")
    (folder / "day=2" / "other").symlink_to(folder / "day=1")
    (folder / "gone.csv").symlink_to(folder / "nowhere")
    names = matched(folder, "**/c.csv")
    assert names == ["day=1/b/c.csv", "day=2/other/b/c.csv"]
    assert "gone.csv" not in matched(folder, "")


def test_a_link_out_of_the_roots_is_refused(folder: Path) -> None:
    (folder / "passwords.csv").symlink_to("/etc/passwd")
    with pytest.raises(RootRefused, match="that is /etc/passwd"):
        matched(folder, "")


@given(st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=4), st.lists(st.sampled_from("ab")))
def test_the_folders_of_a_match_may_hold_one(parts: list[str], names: list[str]) -> None:
    pattern = Glob("/".join(parts))
    if names and pattern.file("/".join(names)):
        assert all(pattern.folder("/".join(names[:depth])) for depth in range(1, len(names)))


@given(st.text("ab-/", max_size=4), st.text("ab-/", max_size=4), st.booleans())
def test_a_listing_ends_only_behind_the_last_match(start: str, name: str, folder_by_folder: bool) -> None:
    pattern = Glob(f"{start}*")
    matching = f"{start}b"

    def order(key: str) -> list[str]:
        return key.split("/") if folder_by_folder else [key]

    if pattern.ended(name):
        assert order(name) > order(matching)
        assert not pattern.file(name)


def test_paths_are_globs_by_their_characters_and_web_addresses_never_are() -> None:
    assert [is_glob(uri) for uri in ("/a/*.csv", "/a/b.csv", "s3://b/x[1]", "https://host/a?b=c")] == [
        True, False, True, False
    ]  # fmt: skip


def test_a_folder_is_listed_page_by_page(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
        for name in range(150):
            os.close(os.open(tmp_path / f"{number:02}" / f"{name}.npy", os.O_CREAT))
    storage = open_storage(str(tmp_path), Roots([str(tmp_path)]))
    pages = list(expand(str(tmp_path), storage))
    assert [len(page) for page in pages] == [1000, 1000, 1000]
