"""Rows of the ledger as Python sees them."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import IntEnum

import msgspec

from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec


class ShardState(IntEnum):
    """The states of a shard, as stored."""

    PENDING = 0
    RUNNING = 1
    DONE = 2
    CANCELLED = 3


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a job's input. etag, mtime_ns: as the storage gave them when it was listed; "" and 0 are unknown.

    rows: -1 while nobody has counted them.
    """

    file_no: int
    uri: str
    format: str
    size: int
    mtime_ns: int = 0
    etag: str = ""
    rows: int = -1


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a job's input that a shard is; rows are numbered from 0 in each file.

    files: how many consecutive files, from `file_no`; more than one are whole files, but for `row_start` in the first.
    byte_start, byte_stop: of the segment or row groups in the file, 0 and -1 for all of it. unit, units: the row groups
    (Parquet, Arrow) or segments in that range; units -1 is all. range_row: number of the first row in the range;
    range_line: its line in a text file, from 1, 0 is unknown.
    row_start: number of the first row to score; those of the range before it are passed over. rows: how many to score;
    -1 is all up to the end.
    """

    file_no: int
    files: int = 1
    unit: int = 0
    units: int = -1
    byte_start: int = 0
    byte_stop: int = -1
    range_row: int = 0
    range_line: int = 0
    row_start: int = 0
    rows: int = -1
    size_bytes: int = 0
    est_s: float = 0.0


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be scored. stage: read, decode, prepare, infer or write. line: in text files, from 1; 0 is
    unknown. input: the row, or as much of it as 64 kB hold, as JSON or as its raw bytes.
    """

    file_no: int
    row: int
    stage: str
    type: str
    message: str
    line: int = 0
    input: bytes = b""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to create. version, package_sha256: what the model is pinned to."""

    spec: ScoreSpec
    options: JobOptions
    version: str
    package_sha256: str
    name: str = ""


class JobRow(msgspec.Struct, kw_only=True):
    """A job as it is in the ledger. error: why it failed, with a remedy; "" if it didn't."""

    id: uuid.UUID
    name: str
    spec: ScoreSpec
    options: JobOptions
    version: str
    package_sha256: str
    state: JobState
    plan_done: bool
    created_at: dt.datetime
    finished_at: dt.datetime | None
    error: str = ""


class Claim(msgspec.Struct, kw_only=True):
    """A shard that a worker has claimed. attempt: fences all that is written about it.

    deaths: attempts that ended without a word. suspect: the positions in the shard (from, to before) that
    ran when the last of them ended; None if nobody knows. files: of the slice.
    """

    job: JobRow
    shard_no: int
    attempt: int
    slice: Slice
    files: list[InputFile]
    deaths: int = 0
    suspect: tuple[int, int] | None = None


class ShardSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a shard went, as far as the steps are busy; they overlap. bytes_read: from the inputs."""

    read_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0


class ShardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a shard: rows_ok + rows_bad + rows_skipped = the rows of its slice.

    part: name of the part in the output folder, "" if it has no rows or goes to the store. part_etag: of the part.
    bad: the bad rows. rest: what of the slice is left, which becomes a shard of its own; None: nothing.
    """

    rows_ok: int
    rows_bad: int
    rows_skipped: int
    part: str = ""
    part_etag: str = ""
    part_bytes: int = 0
    bad: list[BadRow] = []
    rest: Slice | None = None
    seconds: ShardSeconds = ShardSeconds()
