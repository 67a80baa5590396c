"""Bulk jobs as several rooms see them: what a job computes, its states, and the tickets that wake workers."""

from __future__ import annotations

import hashlib
import re
import uuid
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.contracts.errors import HeadraceError, InvalidRequest

#: Names of the queue of a model's tickets, and of the task that a ticket is, are this prefix and the model's name.
SCORE_PREFIX: Final = "score."

#: `ScoreSpec.output` that writes rows of `predictions` instead of files.
STORE: Final = "store"

#: An input that is a query on the store's database begins so.
SQL: Final = "sql:"

OutputFormat: TypeAlias = Literal["parquet", "csv", "jsonl"]


class JobState(StrEnum):
    """The states of a job.

    planning: created; its inputs are being listed and cut, and shards run already. running: all is planned.
    finalizing: all shards have ended; the manifest is being written. cancelling: running shards are told to stop.
    """

    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


#: States in which nothing happens any more, unless the job is resumed or retried.
ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class ScoreSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of what a job computes. Two jobs of one `key` are the same job.

    inputs: URIs of files, folders and globs; local ones are absolute paths. `sql:QUERY` is a query on the store's
    database. output: URI of a folder, or `STORE`. mapping: column → input of the model, where the names differ.
    keep: columns of the input that go into the output. prefix: of the names of outputs, where they
    would clash with kept columns. limit: rows that are scored, from the first; 0 is all. on_null: "error", "skip" or
    "fill=VALUE". truncate: whether text that is too long for the model is an error or is cut. input_format: "" is
    told by the name.
    """

    model: str
    inputs: tuple[str, ...]
    output: str
    format: OutputFormat = "parquet"
    mapping: dict[str, str] = {}
    keep: tuple[str, ...] = ()
    prefix: str = ""
    limit: int = 0
    on_null: str = "error"
    truncate: Literal["error", "cut"] = "error"
    input_format: str = ""

    @property
    def title(self) -> str:
        """A short line for people: `reviews.parquet and 2 more → embed`."""
        first = "query" if self.inputs[0].startswith(SQL) else self.inputs[0].rstrip("/").rpartition("/")[2]
        more = f" and {len(self.inputs) - 1} more" if len(self.inputs) > 1 else ""
        return f"{first}{more} → {self.model}"

    def key(self) -> bytes:
        """Return what identifies the job: SHA-256 of the canonical form of all fields."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).digest()


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is run; may change while it does, and is no part of its identity.

    priority: 0 to 9; shards of a higher one go first. weight: share of the workers among jobs of one priority.
    max_errors: bad rows after which the job fails: "N", "P%" of the rows so far, "" for no bound.
    workers: most shards that run at the same time. max_rows_per_s: of all workers together. 0 is no bound of either.
    dry_run: a worker scores a sample, publishes nothing and leaves a `DryRun` in the ledger; never the same job as any
    other.
    """

    priority: int = 0
    weight: float = 1.0
    max_errors: str = ""
    workers: int = 0
    max_rows_per_s: float = 0.0
    dry_run: bool = False


class JobProblem(msgspec.Struct, frozen=True):
    """Why a job failed, as `JobRow.error` holds it: `TYPE: message`. type: the name of the error's class."""

    type: str
    message: str

    @classmethod
    def of(cls, error: HeadraceError) -> JobProblem:
        """Return the problem that an error is."""
        return cls(error.type, error.message)

    @classmethod
    def parse(cls, text: str) -> JobProblem:
        """Read what `text` wrote; any other text is a message without a type."""
        found = _PROBLEM.fullmatch(text)
        return cls(found[1], found[2]) if found else cls("", text)

    @property
    def text(self) -> str:
        """The problem in one line."""
        return f"{self.type}: {self.message}" if self.type else self.message


_PROBLEM: Final = re.compile(r"([A-Z][A-Za-z]+): (.*)", re.DOTALL)


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a dry run. rows: scored of the sample; bad: those that could not be. seconds: they took.

    total_rows, total_bytes: of the whole input as far as it is known, -1 if not. seconds_low, seconds_high: the whole
    job on the workers present. output_bytes: of the whole job. memory_bytes: peak of the worker's process.
    columns: of the output, name → type. preview: up to five rows of it, as JSON values. problems: of bad rows. notes:
    what was chosen because nobody said it, such as the column of an input.
    """

    rows: int
    bad: int
    seconds: float
    total_rows: int
    total_bytes: int
    workers: int
    seconds_low: float
    seconds_high: float
    output_bytes: int
    memory_bytes: int
    columns: dict[str, str] = {}
    preview: list[dict[str, object]] = []
    problems: list[str] = []
    notes: list[str] = []


class Ticket(msgspec.Struct, frozen=True):
    """The content of a message that wakes a worker: some shard of the job may be claimed, or the job be planned.

    shard: the one that the ticket was made for; -1: of planning. A worker claims in the ledger, where the order and
    the state of jobs are; a ticket that finds nothing to claim is acknowledged.
    """

    job: str
    shard: int


def score_queue(model: str) -> str:
    """Return the name of the queue of a model's tickets, which is also their task name."""
    return SCORE_PREFIX + model


def shard_id(job: str, shard: int, attempt: int = 0) -> uuid.UUID:
    """Return the id under which Flower knows an attempt at a shard, by which it can be revoked.

    attempt: 0 is that of the message of its ticket, the same whenever it is sent again. shard: as in `Ticket`.
    """
    return uuid.uuid5(uuid.UUID(job), f"shard {shard}, attempt {attempt}" if attempt else f"shard {shard}")


class Bound(msgspec.Struct, frozen=True):
    """`JobOptions.max_errors`, parsed. rows: most bad rows; share: or most of all rows so far. Both None: no bound."""

    rows: int | None = None
    share: float | None = None

    def exceeded(self, bad: int, rows: int) -> bool:
        """Return whether these bad rows, among all rows so far, are too many."""
        if self.rows is not None:
            return bad > self.rows
        return self.share is not None and rows > 0 and bad > self.share * rows


def parse_max_errors(text: str) -> Bound:
    """Read `--max-errors`. Raises InvalidRequest."""
    if not text:
        return Bound()
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = -1
    if not 0 <= value < (101 if percent else 2**63):
        raise InvalidRequest(f"max_errors must be a number of rows, or a percentage such as 1%, not {text!r}")
    return Bound(share=value / 100) if percent else Bound(rows=int(value))
