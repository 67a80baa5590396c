"""Whether an output folder and the inputs of its job would mix: then outputs become inputs of the next run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from headrace.bulk.storage.ordering import is_hidden
from headrace.bulk.storage.uris import split

#: What a part is called, to see whether a pattern of inputs would match it.
_SAMPLE: Final = ("part-000000-000000000000.parquet", "part-000000-000000000000.csv", "part-000000-000000000000.jsonl")

_WILD: Final = frozenset("*?[")


def mixed_input(output: str, inputs: Sequence[str]) -> str | None:
    """Return the first of the inputs that an output folder would mix with, None if they are apart.

    What begins with an underscore or a dot is in no listing, so an output `INPUT/_scored` is apart from INPUT.
    """
    return next((uri for uri in inputs if not uri.startswith("sql:") and _mixes(_place(output), _place(uri))), None)


def _mixes(output: str, uri: str) -> bool:
    fixed, pattern = _cut(uri)
    under = _relative(fixed, output)
    if under and not is_hidden(under):
        return True
    inside = _relative(output, fixed)
    if inside is None or (inside and is_hidden(inside)):
        return False
    return not pattern or any(_matches(f"{inside}/{name}".strip("/").split("/"), pattern) for name in _SAMPLE)


def _cut(uri: str) -> tuple[str, list[str]]:
    """Return the folder that a pattern begins in, and the rest of its parts; all of it if there is no wildcard."""
    parts = uri.split("/")
    first = next((at for at, part in enumerate(parts) if _WILD & set(part)), len(parts))
    return "/".join(parts[:first]), parts[first:]


def _relative(path: str, folder: str) -> str | None:
    """Return the path below the folder, "" if it is the folder, None if it lies elsewhere."""
    if path == folder:
        return ""
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else None


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[at:], pattern[1:]) for at in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _place(uri: str) -> str:
    """Return where a location really is: links of local folders resolved, no slash at the end."""
    return os.path.realpath(uri) if split(uri).is_local else uri.rstrip("/")
