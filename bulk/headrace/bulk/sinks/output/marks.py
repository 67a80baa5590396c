"""Whose an output folder is: `_SUCCESS` and `_manifest.json` name the job."""

from __future__ import annotations

import msgspec

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.names import MANIFEST, SUCCESS, below
from headrace.bulk.storage.base import InputMissing, Storage


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What `_SUCCESS` is, and what of `_manifest.json` says whose it is."""

    job: str
    key: str
    state: str


def mark_at(storage: Storage, folder: str) -> Mark | None:
    """Return the job that an output folder is of, None if nothing there says so. Raises OutputTaken if none's."""
    for name in (SUCCESS, MANIFEST):
        try:
            with storage.open(below(folder, name)) as file:
                content = file.read()
        except InputMissing:
            continue
        try:
            return msgspec.json.decode(content, type=Mark)
        except msgspec.DecodeError:
            raise OutputTaken(
                f"{below(folder, name)} was not written by a headrace job; choose another output, or remove it"
            ) from None
    return None
