"""Which names below a folder are listed."""

from __future__ import annotations


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
