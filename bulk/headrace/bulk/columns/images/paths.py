"""Paths of images in a column."""

from __future__ import annotations

import posixpath


def resolved(path: str, file_uri: str) -> str:
    """Return the URI of a path that a file names: URIs and absolute paths as they are, others from its folder on.

    file_uri: of the file; "" leaves relative paths as they are.
    """
    if "://" in path or path.startswith("/") or not file_uri:
        return path
    scheme, mark, place = file_uri.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
