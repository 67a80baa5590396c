"""A job whose shards have ended, with real parts in a real folder."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa

from headrace.bulk.sinks.base import PartFormat
from headrace.bulk.sinks.finishing.finalizer import Finalizer, Finished
from headrace.bulk.sinks.finishing.outcome import Outcome
from headrace.bulk.sinks.formats.opening import open_part
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import part_name
from headrace.bulk.sinks.output.publication import PublishedPart, publish_part
from headrace.bulk.storage.base import InputMissing, Storage
from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.results_store.jobs.records import InputFile, JobError, JobRow, Part, Slice, Sums

NOON = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


class All:
    """The choice of every object, hidden or not."""

    def file(self, name: str) -> bool:
        return bool(name)

    def folder(self, name: str) -> bool:
        return bool(name)

    def ended(self, name: str) -> bool:
        return not name


@dataclass
class FinishedJob:
    """One job that writes into a folder, and what a ledger would say of it."""

    storage: Storage
    folder: str
    scratch: Path
    kind: PartFormat = "parquet"
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    retry: int = 0
    parts: list[Part] = field(default_factory=list)
    errors: list[JobError] = field(default_factory=list)
    input_format: str = "parquet"

    @property
    def spec(self) -> ScoreSpec:
        return ScoreSpec(model="digits", inputs=("/in",), output=self.folder)

    def identity(self, file_no: int, row_start: int, rows: int) -> PartIdentity:
        key = self.spec.key().hex()
        return PartIdentity(
            key=key, job=str(self.id), shard=len(self.parts), file_no=file_no, row_start=row_start, rows_ok=rows
        )

    def publish(self, file_no: int, row_start: int, rows: int | pa.RecordBatch, bad: int = 0) -> PublishedPart:
        """Publish a part, as an attempt does before it says so to the ledger. rows: or how many of any."""
        table = _scores(rows) if isinstance(rows, int) else rows
        identity = msgspec.structs.replace(self.identity(file_no, row_start, table.num_rows), rows_bad=bad)
        writer = open_part(self.kind, self.scratch / "part", table.schema)
        writer.write(table)
        local = writer.close(identity.metadata())
        name = part_name(Slice(file_no=file_no, row_start=row_start), self.kind, self.retry)
        rows_bad = [bad_row(file_no, row_start + table.num_rows + at, 0, self.retry) for at in range(bad)]
        return publish_part(self.storage, local, self.folder, name, identity, rows_bad)

    def score(self, file_no: int, row_start: int, table: int | pa.RecordBatch, bad: int = 0) -> PublishedPart:
        """Publish a part and commit it. table: or how many rows of any."""
        done = self.publish(file_no, row_start, table, bad)
        rows = done.identity.rows_ok
        part = Slice(file_no=file_no, row_start=row_start, rows=rows + bad)
        shard = len(self.parts)
        self.parts.append(
            Part(
                shard_no=shard,
                retry=self.retry,
                slice=part,
                name=done.name,
                etag=done.etag,
                bytes=done.size_bytes,
                rows_ok=rows,
                rows_bad=bad,
                rows_skipped=0,
            )
        )
        self.errors.extend(bad_row(file_no, row_start + rows + at, shard, self.retry) for at in range(bad))
        return done

    def outcome(self, state: JobState = JobState.SUCCEEDED) -> Outcome:
        ok, bad = (sum(getattr(part, name) for part in self.parts) for name in ("rows_ok", "rows_bad"))
        files = max((part.slice.file_no for part in self.parts), default=0) + 1
        sums = Sums(
            shards=len(self.parts),
            shards_left=0,
            rows_ok=ok,
            rows_bad=bad,
            rows_skipped=0,
            rows_in=ok + bad,
            errors=len(self.errors),
            rows_files=None,
            gaps=0,
        )
        return Outcome(
            job=self.row(state),
            state=state,
            sums=sums,
            files=lambda: (
                InputFile(file_no=at, uri=f"/in/{at}", format=self.input_format, size=1) for at in range(files)
            ),
            parts=lambda: sorted(self.parts, key=lambda part: (part.slice.file_no, part.slice.row_start, part.retry)),
            errors=lambda: self.errors,
            ended_at=NOON,
            renew=lambda: None,
        )

    def row(self, state: JobState) -> JobRow:
        return JobRow(
            id=self.id,
            name="nightly",
            spec=self.spec,
            options=JobOptions(),
            version="2",
            package_sha256="cd" * 32,
            state=state,
            plan_done=True,
            created_at=NOON,
            finished_at=None,
            retry=self.retry,
        )

    def finalize(self, state: JobState = JobState.SUCCEEDED, storage: Storage | None = None) -> Finished:
        return Finalizer(storage or self.storage, self.folder, self.outcome(state), self.scratch).run()

    def names(self) -> list[str]:
        """Return all that lies in the output folder, hidden or not."""
        try:
            pages = list(self.storage.pages(self.folder, chosen=All()))
        except InputMissing:
            return []
        return [info.uri.removeprefix(f"{self.folder}/") for page in pages for info in page]

    def content(self) -> dict[str, bytes]:
        """Return what all objects in the output folder hold."""
        found = {}
        for name in self.names():
            with self.storage.open(f"{self.folder}/{name}") as file:
                found[name] = file.read()
        return found


def _scores(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"score": pa.array([float(row) for row in range(rows)], pa.float32())})


def bad_row(file_no: int, row: int, shard: int, retry: int = 0, content: bytes = b'{"x":"a"}') -> JobError:
    return JobError(
        file_no=file_no,
        row=row,
        stage="decode",
        type="NotANumber",
        message="x is text",
        line=row + 1,
        input=content,
        shard_no=shard,
        retry=retry,
    )


def replaced(part: Part, **changes: object) -> Part:
    return msgspec.structs.replace(part, **changes)
