"""Whose an output folder is: `_SUCCESS` and `_manifest.json` name the job."""

from __future__ import annotations

import msgspec

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.names import MANIFEST, SUCCESS, below
from headrace.bulk.storage.base import InputMissing, Storage


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The owner of an output folder: all of `_SUCCESS`, and the beginning of `_manifest.json`."""

    job: str
    key: str
    state: str


class _Named(msgspec.Struct, frozen=True):
    name: str
    etag: str


class _Contents(Mark, frozen=True, kw_only=True):
    parts: list[_Named]


def mark_of(content: bytes) -> Mark | None:
    """Return what the content of `_SUCCESS` or a manifest says, None if no job of headrace wrote it."""
    try:
        return msgspec.json.decode(content, type=Mark)
    except msgspec.DecodeError:
        return None


def mark_as_bytes(mark: Mark) -> bytes:
    """Return the content of `_SUCCESS`."""
    return msgspec.json.encode(mark) + b"\n"


def mark_at(storage: Storage, folder: str) -> Mark | None:
    """Return the job that an output folder is of, None if nothing there says so. Raises OutputTaken if none's."""
    for name in (SUCCESS, MANIFEST):
        try:
            with storage.open(below(folder, name)) as file:
                content = file.read()
        except InputMissing:
            continue
        mark = mark_of(content)
        if mark is None:
            raise OutputTaken(
                f"{below(folder, name)} was not written by a headrace job; choose another output, or remove it"
            )
        return mark
    return None


def parts_in_manifest(storage: Storage, folder: str) -> dict[str, str]:
    """Return the etags of the parts that the manifest of an output folder names; none without a manifest."""
    try:
        with storage.open(below(folder, MANIFEST)) as file:
            contents = msgspec.json.decode(file.read(), type=_Contents)
    except (InputMissing, msgspec.DecodeError):
        return {}
    return {part.name: part.etag for part in contents.parts}
