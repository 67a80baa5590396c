"""The locations below which workers read and write: HEADRACE_BULK_ROOTS."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from typing import Final

from headrace.bulk.storage.base import BadLocation, RootRefused
from headrace.bulk.storage.uris import canonical, split
from headrace.contracts.errors import ConfigurationError

#: Where a colon separates two roots: before an absolute path or a scheme, but not inside `scheme://`.
_COLON: Final = re.compile(rf"{re.escape(os.pathsep)}(?=/(?!/)|[A-Za-z][A-Za-z0-9+.-]+://)")

_SETTING: Final = "HEADRACE_BULK_ROOTS"


def parse_roots(text: str) -> tuple[str, ...]:
    """Return the canonical roots that are separated by commas or, where there is no comma, by colons.

    Raises ConfigurationError for a relative path or a URI that is none.
    """
    pieces = text.split(",") if "," in text else _COLON.split(text)
    return tuple(_root(piece.strip()) for piece in pieces if piece.strip())


def _root(piece: str) -> str:
    if "://" not in piece and not piece.startswith("/"):
        raise ConfigurationError(f"{_SETTING} has the relative path {piece!r}; write absolute paths and URIs")
    try:
        return canonical(piece)
    except BadLocation as exc:
        raise ConfigurationError(f"{_SETTING} has an entry that can't be used: {exc.message}") from None


class Roots:
    """The locations that a worker may touch: without roots, local files, and only for a worker of the local stack."""

    def __init__(self, roots: Iterable[str] = (), *, local_stack: bool = False) -> None:
        """local_stack: whether this worker belongs to the stack on its user's own machine."""
        self._roots = tuple(roots)
        self._any_local = local_stack and not self._roots

    @classmethod
    def parse(cls, text: str, *, local_stack: bool = False) -> Roots:
        """Return the roots of a setting. Raises ConfigurationError."""
        return cls(parse_roots(text), local_stack=local_stack)

    def check(self, uri: str) -> str:
        """Return a canonical location with its links resolved, if it lies below a root. Raises RootRefused."""
        if split(uri).is_local:
            real = os.path.realpath(uri)
            if self._any_local or any(_is_below(real, os.path.realpath(root)) for root in self._local_roots()):
                return real
            raise self._refused(uri, real)
        found = canonical(uri)
        if any(_is_below(found, root) for root in self._roots):
            return found
        raise self._refused(uri, found)

    def _local_roots(self) -> Iterable[str]:
        return (root for root in self._roots if split(root).is_local)

    def _refused(self, uri: str, real: str) -> RootRefused:
        where = uri if real == uri else f"{uri} (that is {real})"
        have = ", ".join(self._roots) if self._roots else ("local files only" if self._any_local else "not set")
        return RootRefused(
            f"{where} is not below {_SETTING} of the worker on {socket.gethostname()} ({have}); add it there and "
            "start the worker again, or choose another location"
        )


def _is_below(location: str, root: str) -> bool:
    return location == root or location.startswith(root.rstrip("/") + "/")
