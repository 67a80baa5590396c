"""The files of `_errors/`: cut by size, published, and those of an earlier end of the same job replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.finishing.errors import COLUMNS, as_lines, as_table, batches, named
from headrace.bulk.sinks.finishing.manifest import ErrorPart
from headrace.bulk.sinks.finishing.outcome import Outcome
from headrace.bulk.sinks.formats.parquet import ParquetPart
from headrace.bulk.sinks.formats.scratch import full_disk_translated
from headrace.bulk.sinks.output.folder import listed
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import ERRORS, below
from headrace.bulk.sinks.output.owner import checksum_of, identity_at
from headrace.bulk.storage.base import AlreadyExists, InputMissing, Storage

#: Bytes of bad rows, each with up to 64 kB of its input, after which another file begins; they are in memory. Less than
#: a row group, after which bytes are counted as they are compressed.
MAX_BYTES: Final = 8 << 20

_NAME: Final = re.compile(r"part-\d{6,}(-r\d+)?\.(parquet|jsonl)")


class ErrorParts:
    """Writes the bad rows of a job into its output folder."""

    def __init__(self, storage: Storage, folder: str, outcome: Outcome, scratch: Path) -> None:
        """folder: URI of the output. scratch: a local folder."""
        self._storage = storage
        self._folder = below(folder, ERRORS)
        self._outcome = outcome
        self._scratch = scratch

    def publish(self) -> Iterator[ErrorPart]:
        """Publish all bad rows, and yield each file when it is there; none without bad rows."""
        pending = batches(named(self._outcome.errors(), self._outcome.files()))
        batch = next(pending, None)
        number = 0
        while batch:
            table = ParquetPart(self._scratch / "errors.parquet", COLUMNS, {})
            lines = self._scratch / "errors.jsonl"
            with full_disk_translated(self._scratch), lines.open("wb") as file:
                while batch and table.size_bytes < MAX_BYTES:
                    table.write(as_table(batch))
                    file.write(as_lines(batch, self._outcome.id))
                    batch = next(pending, None)
            self._outcome.renew()
            yield from self._published(number, table, lines)
            number += 1

    def remove_others(self, kept: frozenset[str]) -> None:
        """Remove the files of bad rows that an earlier end of this job left. kept: names below the output folder."""
        self._outcome.renew()
        for name, info in list(listed(self._storage, self._folder)):
            if f"{ERRORS}/{name}" not in kept and _NAME.fullmatch(name) and self._is_ours(name):
                self._storage.delete(info.uri)

    def _published(self, number: int, table: ParquetPart, lines: Path) -> Iterator[ErrorPart]:
        job = self._outcome.job
        stem = f"part-{number:06}" + (f"-r{job.retry}" if job.retry else "")
        identity = PartIdentity(
            key=self._outcome.key, job=self._outcome.id, shard=-1, file_no=number, row_start=0, rows_ok=table.rows
        )
        yield self._replaced(table.close(identity.metadata()), f"{stem}.parquet", table.rows)
        if lines.stat().st_size:
            yield self._replaced(lines, f"{stem}.jsonl", table.rows)
        lines.unlink(missing_ok=True)

    def _replaced(self, local: Path, name: str, rows: int) -> ErrorPart:
        """Publish a file, in the place of what an earlier end of this job published."""
        uri = below(self._folder, name)
        try:
            info = self._storage.publish(local, uri)
        except AlreadyExists:
            if not self._is_ours(name):
                raise OutputTaken(f"{uri} is of another job; choose another output, or --restart") from None
            info = self._storage.stat(uri)
            if self._checksum(uri) != _checksum(local):
                # Not seen as finished: `_SUCCESS` is not there, or names other files of errors, of an earlier retry.
                self._outcome.renew()
                self._storage.delete(uri)
                info = self._storage.publish(local, uri)
        local.unlink(missing_ok=True)
        return ErrorPart(name=f"{ERRORS}/{name}", rows=rows, etag=info.etag, bytes=info.size)

    def _is_ours(self, name: str) -> bool:
        """Return whether a file is of this job. The lines of a file are published after its table, which tells."""
        try:
            found = identity_at(self._storage, self._folder, name.replace(".jsonl", ".parquet"))
        except InputMissing:
            return False
        return found is not None and found.job == self._outcome.id

    def _checksum(self, uri: str) -> str:
        with self._storage.open(uri) as file:
            return checksum_of(file)


def _checksum(local: Path) -> str:
    with local.open("rb") as file:
        return checksum_of(file)
