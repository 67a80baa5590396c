"""Removal of an earlier job's outputs (`--restart`): exactly those, and nothing while something else is among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.folder import listed
from headrace.bulk.sinks.output.marks import mark_at, parts_in_manifest
from headrace.bulk.sinks.output.names import CARDS, ERRORS, MANIFEST, SUCCESS, below, is_part
from headrace.bulk.sinks.output.owner import identity_at, read_card
from headrace.bulk.storage.base import InputMissing, ObjectInfo, Storage


def remove_output(storage: Storage, folder: str, job: str, named: Mapping[str, str] = {}) -> int:
    """Remove the outputs of a job: parts, errors, manifest and `_SUCCESS`; return how many objects that were.

    named: etag by name of the parts that the ledger knows; the manifest is read as well. Others are looked into, for a
    part may have been published by an attempt that died before it could say so. Nothing is removed before all is
    looked at; raises OutputTaken at the first object that is not the job's. Call it again after a crash.
    """
    mark = mark_at(storage, folder)
    if mark is not None and mark.job != job:
        raise OutputTaken(f"{folder} holds outputs of job {mark.job}, not of {job}; choose another output")
    named = {**parts_in_manifest(storage, folder), **named}
    for _ in _owned(storage, folder, job, named):
        pass
    storage.delete(below(folder, SUCCESS))  # first: from here on nobody takes the folder for a finished one
    removed = 0
    for info in _owned(storage, folder, job, named):
        storage.delete(info.uri)
        removed += 1
    storage.delete(below(folder, MANIFEST))  # last: until here it says whose the rest is
    return removed


def remove_cards(storage: Storage, folder: str, job: str) -> None:
    """Remove the cards of a job's parts, which nobody needs once all of its shards have ended."""
    for info in list(_cards(storage, folder, job)):
        storage.delete(info.uri)


def _owned(storage: Storage, folder: str, job: str, named: Mapping[str, str]) -> Iterator[ObjectInfo]:
    """Yield the objects of a job below a folder, parts before what tells whose they are."""
    for name, info in listed(storage, folder):
        if named.get(name) != info.etag and not (is_part(name) and _is_of(storage, folder, name, job)):
            raise _foreign(info)
        yield info
    errors = below(folder, ERRORS)
    # Lines before their table, so that after a crash half-way the table still tells whose they are.
    for name, info in sorted(listed(storage, errors), key=lambda found: (found[0].endswith(".parquet"), found[0])):
        table = name.replace(".jsonl", ".parquet")  # the lines of an error file lie beside its table, which tells
        if not (name.startswith("part-") and table.endswith(".parquet") and _is_of(storage, errors, table, job)):
            raise _foreign(info)
        yield info
    yield from _cards(storage, folder, job)


def _is_of(storage: Storage, folder: str, name: str, job: str) -> bool:
    try:
        found = identity_at(storage, folder, name)
    except InputMissing:
        return False
    return found is not None and found.job == job


def _cards(storage: Storage, folder: str, job: str) -> Iterator[ObjectInfo]:
    for _, info in listed(storage, below(folder, CARDS)):
        card = read_card(storage, info.uri)
        if card is None or card.identity.job != job:
            raise _foreign(info)
        yield info


def _foreign(info: ObjectInfo) -> OutputTaken:
    return OutputTaken(f"{info.uri} was not written by this job, so nothing is removed; move it away and try again")
