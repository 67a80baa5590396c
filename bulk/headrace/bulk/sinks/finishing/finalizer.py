"""The end of a job in its output folder: parts verified, bad rows, manifest, and `_SUCCESS` last.

Each step finds what a finalizer that died left behind, and does no more than is missing; two at once do no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from headrace.bulk.sinks.base import OutputDamaged, OutputTaken
from headrace.bulk.sinks.finishing.comparison import verified
from headrace.bulk.sinks.finishing.error_parts import ErrorParts
from headrace.bulk.sinks.finishing.manifest import ErrorPart, manifest_lines
from headrace.bulk.sinks.finishing.outcome import Outcome, check_rows
from headrace.bulk.sinks.formats.scratch import full_disk_translated
from headrace.bulk.sinks.output.folder import listed
from headrace.bulk.sinks.output.marks import Mark, mark_as_bytes, mark_at, mark_of
from headrace.bulk.sinks.output.names import MANIFEST, SUCCESS, below, is_part
from headrace.bulk.sinks.output.owner import identity_at
from headrace.bulk.sinks.output.removal import remove_cards
from headrace.bulk.storage.base import (
    AlreadyExists,
    InputChanged,
    InputMissing,
    ObjectInfo,
    Storage,
    StorageUnavailable,
)
from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.records import Part

#: How often an object may be replaced by somebody else while we replace it, before the job waits.
_TRIES: Final = 5


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A job's end as it lies in the output folder.

    manifest_etag: "" if there is no manifest. removed: parts of attempts whose shards somebody else has done.
    """

    manifest_etag: str
    errors: list[ErrorPart]
    removed: list[str]


class Finalizer:
    """Writes the end of one job. For one thread."""

    def __init__(self, storage: Storage, folder: str, outcome: Outcome, scratch: Path) -> None:
        """folder: URI of the output. scratch: a local folder that is removed by the caller."""
        self._storage = storage
        self._folder = folder
        self._outcome = outcome
        self._scratch = scratch
        self._rows_ok = 0
        self._parts_named = 0
        self._strays: list[str] = []

    def run(self) -> Finished:
        """Write the errors, the manifest, and `_SUCCESS` if the job succeeded.

        Raises OutputDamaged if a part is gone or was changed, or the rows do not add up; OutputTaken if the folder
        holds something else; FinalizingLost if somebody else finalizes the job by now.
        """
        check_rows(self._outcome)
        mark = mark_at(self._storage, self._folder)
        if mark is not None:
            self._check_is_ours(self._folder, mark)
        errors = ErrorParts(self._storage, self._folder, self._outcome, self._scratch)
        published = list(errors.publish())
        etag = self._write_manifest(published, known=mark is not None)
        if self._outcome.state is JobState.SUCCEEDED:
            self._put(SUCCESS, mark_as_bytes(self._mark()))
            remove_cards(self._storage, self._folder, self._outcome.id)
        errors.remove_others(frozenset(part.name for part in published))
        return Finished(manifest_etag=etag, errors=published, removed=self._strays)

    def _mark(self) -> Mark:
        return Mark(job=self._outcome.id, key=self._outcome.key, state=self._outcome.state.value)

    def _write_manifest(self, errors: list[ErrorPart], *, known: bool) -> str:
        """Write the manifest and return its etag. known: whether the folder is the job's already.

        A job that was refused or stopped before it wrote anything leaves nothing, and returns "".
        """
        local = self._scratch / "manifest.json"
        with full_disk_translated(self._scratch), local.open("wb") as file:
            file.writelines(manifest_lines(self._outcome, self._parts(), errors))
        self._outcome.renew()
        if self._outcome.state is JobState.SUCCEEDED:
            self._check_counts(errors)
        elif not (errors or self._parts_named or known):
            return ""
        else:
            # An earlier end of this job may have been a success, before it was given more to do.
            self._storage.delete(below(self._folder, SUCCESS))
        try:
            return self._storage.publish(local, below(self._folder, MANIFEST)).etag
        except AlreadyExists:
            return self._put(MANIFEST, local.read_bytes()).etag

    def _parts(self) -> Iterator[Part]:
        """Yield the parts of the ledger that are in the folder as they were published."""
        parts = map(self._count, self._outcome.parts())
        named = (part for part in parts if part.name)
        for found in verified(named, listed(self._storage, self._folder)):
            if isinstance(found, Part):
                yield found
            elif self._outcome.state is JobState.SUCCEEDED:
                self._remove_stray(found)

    def _count(self, part: Part) -> Part:
        self._rows_ok += part.rows_ok
        self._parts_named += bool(part.name)
        return part

    def _remove_stray(self, info: ObjectInfo) -> None:
        """Remove a part that an attempt published after it had lost its shard to another one."""
        name = info.uri[len(self._folder.rstrip("/")) + 1 :]
        try:
            found = identity_at(self._storage, self._folder, name) if is_part(name) else None
        except InputMissing:
            return
        if found is None or found.job != self._outcome.id:
            raise OutputTaken(f"{info.uri} was not written by this job; move it away, then `headrace jobs resume`")
        self._outcome.renew()  # a later finalizer may know it as a part of a retry
        self._storage.delete(info.uri)
        self._strays.append(name)

    def _check_counts(self, errors: list[ErrorPart]) -> None:
        listed_errors = sum(part.rows for part in errors if part.name.endswith(".parquet"))
        ledger = (self._outcome.sums.rows_ok, self._outcome.sums.errors)
        if ledger != (self._rows_ok, listed_errors):
            raise OutputDamaged(
                f"the ledger counts {ledger[0]} rows and {ledger[1]} bad rows of job {self._outcome.id}, the output "
                f"has {self._rows_ok} and {listed_errors}; run it with --restart"
            )

    def _put(self, name: str, content: bytes) -> ObjectInfo:
        """Write an object, in the place of what an earlier end of this job wrote. Raises OutputTaken."""
        uri = below(self._folder, name)
        for _ in range(_TRIES):
            with suppress(AlreadyExists, InputMissing, InputChanged):
                present = self._present(uri)
                if present is None:
                    return self._storage.put(uri, content)
                info, found = present
                if found == content:
                    return info
                self._outcome.renew()  # a worker that was frozen must not put an older end in the place of a newer one
                self._check_is_ours(uri, mark_of(found))
                return self._storage.replace(uri, content, info.etag)
        raise StorageUnavailable(f"{uri} is being replaced by somebody else all the time; the job tries again")

    def _present(self, uri: str) -> tuple[ObjectInfo, bytes] | None:
        try:
            info = self._storage.stat(uri)
        except InputMissing:
            return None
        with self._storage.open(uri, etag=info.etag) as file:
            return info, file.read()

    def _check_is_ours(self, uri: str, mark: Mark | None) -> None:
        if mark is None or mark.job != self._outcome.id:
            whose = f"of job {mark.job}" if mark else "of no headrace job"
            raise OutputTaken(f"{uri} is {whose}; choose another output, or --restart to replace an earlier job")
