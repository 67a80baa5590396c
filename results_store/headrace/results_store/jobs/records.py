"""Rows of the ledger as Python sees them."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import Enum, IntEnum

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
    """A job to create. version, package_sha256: what the model is pinned to. replaces: see `JobRow`."""

    spec: ScoreSpec
    options: JobOptions
    version: str
    package_sha256: str
    name: str = ""
    replaces: tuple[uuid.UUID, ...] = ()


class JobRow(msgspec.Struct, kw_only=True):
    """A job as it is in the ledger. error: why it failed, with a remedy; "" if it didn't.

    retry: how often bad rows were tried again. manifest_etag: of the manifest that was written last; "" if none was.
    replaces: earlier runs of the job, the last one first: the output folder may hold the output of one of them, which
    is removed before this one begins. notes: what was chosen when it was planned because nobody said it, such as the
    column of an input.
    """

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
    retry: int = 0
    manifest_etag: str = ""
    replaces: tuple[uuid.UUID, ...] = ()
    notes: tuple[str, ...] = ()


class Claim(msgspec.Struct, kw_only=True):
    """A shard that a worker has claimed. attempt: fences all that is written about it.

    deaths: attempts that ended without a word. suspect: the positions in the shard (from, to before) that
    ran when the last of them ended; None if nobody knows. files: of the slice. retry: above 0, bad rows are tried
    again: `only` those (file number, row), in order, and no others of the slice.
    """

    job: JobRow
    shard_no: int
    attempt: int
    slice: Slice
    files: list[InputFile]
    deaths: int = 0
    suspect: tuple[int, int] | None = None
    retry: int = 0
    only: list[tuple[int, int]] = []


class Order(Enum):
    """The fate of a shard that runs. LOST: somebody else has it by now; nothing of it may be published."""

    GO_ON = "go on"
    LOST = "lost"
    PAUSE = "pause"
    CANCEL = "cancel"


class Directive(msgspec.Struct, frozen=True):
    """The answer to a heartbeat. max_rows_per_s: this shard's share of the job's bound; 0 is no bound."""

    order: Order
    max_rows_per_s: float = 0.0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of completing a shard. stored: False if somebody else has it by now. state: of the job afterwards;
    finalizing when this was its last shard, failed when it had too many bad rows.
    """

    stored: bool
    state: JobState


class ShardSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a shard went, as far as the steps are busy; they overlap. bytes_read: from the inputs.

    wall_s: how long the shard was the one that the worker ran; 0 is taken for the longest of the others.
    """

    read_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0
    wall_s: float = 0.0

    def served_s(self) -> float:
        """Return how long a worker was busy with the shard."""
        return self.wall_s or max(self.read_s, self.decode_s, self.infer_s, self.write_s)


class ShardResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a shard: rows_ok + rows_bad + rows_skipped = the rows of its slice.

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


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that looks for work. worker: its name. models: those it serves.

    process: the identity of its process, since two workers may have one name; "" is unknown.
    packages: SHA-256 of the packages that it serves; only jobs that are pinned to one of them are its. None: any.
    """

    worker: str
    models: tuple[str, ...]
    packages: tuple[str, ...] | None = None
    process: str = ""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a job's shards were so far: of one worker, while it is busy. All are 0 when none has ended.

    shards: that ended. pending, running: that wait and run now. workers: with a shard of the job that runs.
    """

    rows_per_s: float = 0.0
    bytes_per_s: float = 0.0
    shards: int = 0
    pending: int = 0
    running: int = 0
    workers: int = 0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to plan or finalize a job, for a time. attempt: fences all that its holder writes."""

    job: JobRow
    attempt: int
    lease_s: float


class PlanLease(Lease, frozen=True, kw_only=True):
    """The right to plan a job. cursor: of the last page; b"" at the start. next_file: the number of the next file."""

    cursor: bytes
    next_file: int
    pace: Pace


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a plan. files: new ones, or such as have been counted by now; numbered from `PlanLease.next_file`.

    slices: become shards, in order. done: nothing follows. bytes_total: of all that the job is to read, as soon as it
    is known; before that, nobody can tell how far the job is. notes: see `JobRow`; None leaves them as they are.
    """

    files: list[InputFile] = []
    slices: list[Slice] = []
    cursor: bytes = b""
    done: bool = False
    bytes_total: int | None = None
    notes: tuple[str, ...] | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A shard that has ended. name: "" if it left no part."""

    shard_no: int
    retry: int
    slice: Slice
    name: str
    etag: str
    bytes: int
    rows_ok: int
    rows_bad: int
    rows_skipped: int


class JobError(BadRow, frozen=True, kw_only=True):
    """A row of a job that is bad. retry: in which retry it failed; 0 is none."""

    shard_no: int
    retry: int


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a job, counted over shards, files and bad rows.

    shards_left: that were dropped. rows_ok + rows_bad + rows_skipped are the rows that came out. rows_in: of the slices
    as they were planned and done. errors: bad rows that are listed. rows_files: of the input files; None if some were
    never counted, or if the job has a limit. gaps: places in the input that no shard, or more than one, has scored;
    files without rows need no shard.
    """

    shards: int
    shards_left: int
    rows_ok: int
    rows_bad: int
    rows_skipped: int
    rows_in: int
    errors: int
    rows_files: int | None
    gaps: int

    def mismatch(self) -> str:
        """Return what does not add up; "" if all does."""
        if self.shards_left:
            return f"{self.shards_left} shards were dropped and did not run"
        counted = self.rows_ok + self.rows_bad + self.rows_skipped
        if counted != self.rows_in:
            return f"{self.rows_in} rows went in, and {counted} came out, as rows, bad rows or skipped ones"
        if self.rows_bad != self.errors:
            return f"{self.rows_bad} rows were bad, and {self.errors} are listed"
        if self.rows_files is not None and self.rows_files != self.rows_in:
            return f"the input has {self.rows_files} rows, and {self.rows_in} were read"
        return f"{self.gaps} places of the input were read twice or not at all" if self.gaps else ""
