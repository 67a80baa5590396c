"""Inputs of a job: a file, a folder or a glob, as pages of objects in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from headrace.bulk.storage.base import BadLocation, InputMissing, ObjectInfo, Storage
from headrace.bulk.storage.ordering import is_hidden
from headrace.bulk.storage.uris import split
from headrace.contracts.errors import quoted

#: What makes a location a glob.
_MAGIC: Final = re.compile(r"[*?\[]")

#: Schemes in which `?` begins a query.
_NO_GLOBS: Final = ("http", "https")


def is_glob(uri: str) -> bool:
    """Return whether a canonical location has `*`, `?` or `[` in it."""
    return split(uri).scheme not in _NO_GLOBS and _MAGIC.search(uri) is not None


def expand(uri: str, storage: Storage, after: str = "") -> Iterator[list[ObjectInfo]]:
    """Yield the objects that an input names, page by page in the order of their URIs, those after a URI only.

    uri: canonical; of an object, which may be hidden, of a folder, or a glob, if there is no object of that name: `*`,
    `?` and `[…]` match within a name, `**` any folders. Hidden names match only where the glob has the dot or
    underscore. Raises InputMissing when there is none.
    """
    try:
        found = storage.stat(uri)
    except InputMissing:
        yield from _below(uri, storage, after)
        return
    if found.uri > after:
        yield [found]


def _below(uri: str, storage: Storage, after: str) -> Iterator[list[ObjectInfo]]:
    base, pattern = base_and_pattern(uri) if is_glob(uri) else (uri, "")
    chosen = Glob(pattern) if pattern else None
    empty = True
    for page in storage.pages(base, after, chosen=chosen):
        empty = False
        yield page
    if empty and not after:
        what = "matches no file" if pattern else "has no files, or none that isn't hidden"
        raise InputMissing(f"{quoted(uri)} {what}; check the path, and that the workers see it")


def base_and_pattern(uri: str) -> tuple[str, str]:
    """Return the folder that a glob is listed from, and the glob relative to it."""
    match = _MAGIC.search(uri)
    cut = uri.rindex("/", 0, match.start()) if match else len(uri)
    return uri[:cut] or "/", uri[cut + 1 :]


class Glob:
    """The names that a glob matches, and the folders in which there may be some."""

    def __init__(self, pattern: str) -> None:
        """pattern: relative to the folder that is listed."""
        self._parts = tuple(pattern.split("/"))
        magic = _MAGIC.search(pattern)
        self._start = pattern[: magic.start()] if magic else pattern

    def file(self, name: str) -> bool:
        """Return whether this object is listed."""
        return _matches(self._parts, tuple(name.split("/")), whole=True)

    def folder(self, name: str) -> bool:
        """Return whether there may be chosen objects in this folder."""
        return _matches(self._parts, tuple(name.split("/")), whole=False)

    def ended(self, name: str) -> bool:
        """Return whether a name is behind all that begin like the glob, by letters and folder by folder."""
        start = self._start
        return not name.startswith(start) and name > start and name.split("/") > start.split("/")


def _matches(pattern: tuple[str, ...], names: tuple[str, ...], *, whole: bool) -> bool:
    """Return whether a pattern matches names, or, unless `whole`, could match more names after them."""
    states = {0}
    for name in names:
        states = {new for state in _beside(pattern, states) for new in _step(pattern, state, name)}
    reached = _beside(pattern, states)
    return len(pattern) in reached if whole else any(state < len(pattern) for state in reached)


def _beside(pattern: tuple[str, ...], states: set[int]) -> set[int]:
    """Return the states with those that are reached because `**` matches no folder, too."""
    reached = set(states)
    for state in range(len(pattern) - 1):
        if state in reached and pattern[state] == "**":
            reached.add(state + 1)
    return reached


def _step(pattern: tuple[str, ...], state: int, name: str) -> Iterator[int]:
    if state == len(pattern):
        return
    part = pattern[state]
    if part == "**":
        if not is_hidden(name):
            yield state
            # At the end, `**` is any file.
            if state == len(pattern) - 1:
                yield state + 1
    elif _part(part).fullmatch(name) and (not is_hidden(name) or is_hidden(part)):
        yield state + 1


@lru_cache(256)
def _part(part: str) -> re.Pattern[str]:
    """Return the expression for one part of a glob. An open `[` stands for itself, as in a shell."""
    out = ""
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            out += ".*"
        elif char == "?":
            out += "."
        elif char == "[" and (close := part.find("]", at + 1 + (part[at : at + 1] in "!^"))) > 0:
            inside = part[at:close]
            negated = inside[:1] in ("!", "^")
            out += f"[{'^' if negated else ''}{_set(inside[negated:])}]"
            at = close + 1
        else:
            out += re.escape(char)
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        raise BadLocation(f"{quoted(part)} is no glob; write ranges as [a-z], and a bracket itself as [[]") from None


def _set(inside: str) -> str:
    """Return the content of a bracket with all escaped but ranges."""
    return "".join(char if char == "-" else re.escape(char) for char in inside)
