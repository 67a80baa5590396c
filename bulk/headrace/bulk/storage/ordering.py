"""The order of listings: that of whole URIs as UTF-8, whatever the storage; and the names that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from headrace.bulk.storage.base import BadLocation, ObjectInfo
from headrace.contracts.errors import quoted


def is_hidden(name: str) -> bool:
    """Return whether a part of a name begins with `.` or `_`, as scratch files and `_SUCCESS` do."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


class Visible:
    """The names without a hidden part."""

    def file(self, name: str) -> bool:
        """Return whether this object is listed."""
        return not is_hidden(name)

    def folder(self, name: str) -> bool:
        """Return whether there may be chosen objects in this folder."""
        return not is_hidden(name)

    def ended(self, name: str) -> bool:  # noqa: ARG002
        """Return False: there may always be more."""
        return False


class Tree(Protocol):
    """Folders of a storage that lists one folder at a time."""

    def names(self, inside: str) -> Iterable[str]:
        """Yield the names in a folder, those of folders with a slash at the end.

        inside: the folder, relative to the top; "" or with a slash at its end.
        """
        ...

    def info(self, name: str) -> ObjectInfo | None:
        """Return what is known of the object of this relative name; None if it is none, or none any more."""
        ...


def walk(tree: Tree, after: str, inside: str = "") -> Iterator[ObjectInfo]:
    """Yield the objects whose relative names come after `after`, in order, with one folder of each level in memory."""
    for name in in_order(tree.names(inside)):
        path = inside + name
        if not path.endswith("/"):
            if path > after and (info := tree.info(path)) is not None:
                yield info
        # All names in a folder begin alike, so `after` lies among them, or before or behind all of them.
        elif path > after or after.startswith(path):
            yield from walk(tree, after, path)


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of their UTF-8. Raises BadLocation for one that has none."""
    try:
        return sorted(names, key=str.encode)
    except UnicodeEncodeError as exc:
        raise BadLocation(f"the file name {quoted(exc.object)} isn't UTF-8; rename the file") from None
