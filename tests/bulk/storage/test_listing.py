"""Listings of buckets go on behind a key in whatever order a store has, and notice when it has none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from headrace.bulk.storage.base import BadLocation
from headrace.bulk.storage.globs import Glob
from headrace.bulk.storage.objects.listing import Listing, check_order
from headrace.bulk.storage.ordering import Visible

T = TypeVar("T")

KEYS = st.sets(st.text("ab-/.", min_size=1, max_size=6).filter(lambda key: all(key.split("/"))), max_size=12)


@given(KEYS)
def test_keys_in_either_order_are_taken(keys: set[str]) -> None:
    for order in (sorted(keys), sorted(keys, key=lambda key: key.split("/"))):
        for before, key in pairwise(["", *order]):
            check_order(before, key)


@pytest.mark.parametrize(("before", "key"), [("b", "a"), ("a", "a"), ("a/b", "a/a"), ("b/x", "a-b")])
def test_keys_in_no_order_are_refused(before: str, key: str) -> None:
    with pytest.raises(BadLocation, match="in no order"):
        check_order(before, key)


class Forgetful(Listing):
    """A listing of a store that always begins at the first object."""

    def _next(self) -> list[obstore.ObjectMeta]:
        if self._stream is None:
            self._begins = bool(self._last)
            self._stream = obstore.list(self._client, self._folder, chunk_size=3)
        while chunk := next(self._stream, ()):
            if left := self._behind_last(chunk):
                return list(left)
        return []


@pytest.mark.parametrize("kind", [Listing, Forgetful])
def test_a_listing_begins_behind_a_name_even_if_the_store_does_not(kind: type[Listing]) -> None:
    store = MemoryStore()
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        store.put(f"in/{name}", b"x")
    for after in range(20):
        listing = kind(store, "in", Visible())
        found = listing.objects(names[after], lambda call: call(0), lambda _: True)
        assert [meta["path"] for meta in found] == [f"in/{name}" for name in names[after + 1 :]]


def test_what_a_console_made_as_a_folder_is_no_object() -> None:
    store = MemoryStore()
    for name in ("in/a", "in/folder", "in/empty.csv"):
        store.put(name, b"" if name != "in/a" else b"x")
    listing = Listing(store, "in", Visible())
    found = listing.objects("", lambda call: call(0), lambda key: key != "in/folder")
    assert [meta["path"] for meta in found] == ["in/a", "in/empty.csv"]


def test_folders_in_which_nothing_is_chosen_are_passed_over() -> None:
    store = MemoryStore()
    for number in range(2500):
        store.put(f"in/_tmp/{number:04}", b"x")
        store.put(f"in/b/c/{number:04}", b"x")
    for name in ("a.csv", "b/a.csv", "b/z.csv", "z.csv"):
        store.put(f"in/{name}", b"x")
    asked: list[int] = []

    def count(call: Callable[[int], T]) -> T:
        asked.append(1)
        return call(0)

    found = [meta["path"] for meta in Listing(store, "in", Glob("**/[a-z].csv")).objects("", count, lambda _: True)]
    assert found == ["in/a.csv", "in/b/a.csv", "in/b/z.csv", "in/z.csv"]
    assert len(asked) == 5
    asked.clear()
    found = [meta["path"] for meta in Listing(store, "in", Glob("*/*.csv")).objects("", count, lambda _: True)]
    assert found == ["in/b/a.csv", "in/b/z.csv"]
    assert len(asked) == 4
