"""The objects of a bucket below a folder, as the store lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from headrace.bulk.storage.base import BadLocation, Chosen
from headrace.bulk.storage.uris import BEHIND
from headrace.contracts.errors import quoted

if TYPE_CHECKING:
    from obstore import ListStream, ObjectMeta
    from obstore.store import ObjectStore

T = TypeVar("T")

#: Objects that obstore hands over at once.
_CHUNK: Final = 1000


class Patience(Protocol):
    """Calls again what may succeed in a moment."""

    def __call__(self, call: Callable[[int], T], /) -> T:
        """Return what the call returns."""
        ...


class Listing:
    """One listing. For one thread."""

    def __init__(self, client: ObjectStore, folder: str, chosen: Chosen) -> None:
        """folder: key of the folder, without a slash at its end; "" is the whole bucket."""
        self._client = client
        self._folder = folder
        self._base = f"{folder}/" if folder else ""
        self._chosen = chosen
        self._stream: ListStream[Sequence[ObjectMeta]] | None = None
        self._last = ""
        self._begins = False

    def objects(self, after: str, patiently: Patience, is_there: Callable[[str], bool]) -> Iterator[ObjectMeta]:
        """Yield the chosen objects after a name relative to the folder.

        Consoles make empty objects named `folder/`, which obstore calls `folder`: of empty ones, those that are not
        there under that name are left out.
        """
        if after == BEHIND:
            return
        self._last = self._base + after if after else ""
        before = ""
        while chunk := patiently(lambda _: self._next()):
            for meta in chunk:
                name = meta["path"].removeprefix(self._base)
                if self._chosen.ended(name):
                    return
                if meta["path"] == self._folder or not self._chosen.file(name):
                    continue
                if meta["size"]:
                    check_order(before, meta["path"])
                    before = meta["path"]
                elif not is_there(meta["path"]):
                    continue
                yield meta
            self._pass_over(chunk[-1]["path"])

    def _next(self) -> Sequence[ObjectMeta]:
        """Return the next chunk; after an error, of a new list that begins behind the last chunk."""
        import obstore

        if self._stream is None:
            self._stream = obstore.list(
                self._client, self._folder or None, offset=self._last or None, chunk_size=_CHUNK
            )
            self._begins = bool(self._last)
        try:
            while chunk := next(self._stream, ()):
                if left := self._behind_last(chunk):
                    self._last = left[-1]["path"]
                    return left
        except BaseException:
            self._stream = None
            raise
        return ()

    def _pass_over(self, key: str) -> None:
        """Let the list begin anew behind the folder of a key, if nothing is chosen in it."""
        folders = key.removeprefix(self._base).split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/".join(folders[:depth])
            if not self._chosen.folder(folder):
                self._last = f"{self._base}{folder}/{BEHIND}"
                self._stream = None
                return

    def _behind_last(self, chunk: Sequence[ObjectMeta]) -> Sequence[ObjectMeta]:
        """Return the chunk; without what is not behind the last one if the store has ignored where to begin.

        Azurite does. Empty objects tell nothing about it: see `objects`.
        """
        if not self._begins:
            return chunk
        first = next((meta["path"] for meta in chunk if meta["size"]), "")
        if first and not (first <= self._last and first.split("/") <= self._last.split("/")):
            self._begins = False
            return chunk
        return [meta for meta in chunk if meta["path"] > self._last] if first else chunk


def check_order(before: str, key: str) -> None:
    """Raise BadLocation when two keys are in no order that a listing could go on from.

    Stores list by key; some of them, such as SeaweedFS, folder by folder, where `a/b` comes before `a-b`.
    """
    if before.encode() < key.encode() or before.split("/") < key.split("/"):
        return
    raise BadLocation(
        f"this store lists {quoted(key)} after {quoted(before)}, in no order; name a bucket of another kind than "
        "S3 Express One Zone"
    )
