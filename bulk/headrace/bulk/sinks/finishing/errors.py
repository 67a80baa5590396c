"""`_errors/`: the bad rows of a job as Parquet, and as lines of an OpenAI error file where requests came as such."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

import msgspec
import pyarrow as pa

from headrace.bulk.sinks.formats.openai import CUSTOM_ID, error_line
from headrace.results_store.jobs.records import InputFile, JobError

#: The columns of `_errors/*.parquet`. row: from 0; line: from 1, null where files have none.
COLUMNS: Final = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("input", pa.binary()),
        pa.field("retry", pa.int32(), nullable=False),
    ]
)

#: What is kept of a bad row.
MAX_INPUT_BYTES: Final = 64 << 10

#: Bad rows that are in memory at a time, each with up to 64 kB of its input.
BATCH_ROWS: Final = 64


class NamedError(msgspec.Struct, frozen=True):
    """A bad row and the file that it is in."""

    file: InputFile
    error: JobError


def named(errors: Iterable[JobError], files: Iterable[InputFile]) -> Iterator[NamedError]:
    """Yield bad rows with their files. Both are in the order of file numbers, and read once."""
    remaining = iter(files)
    file = None
    for error in errors:
        while file is None or file.file_no < error.file_no:
            file = next(remaining)
        yield NamedError(file, error)


def batches(errors: Iterable[NamedError]) -> Iterator[list[NamedError]]:
    """Yield bad rows some at a time."""
    remaining = iter(errors)
    for first in remaining:
        yield list(chain([first], islice(remaining, BATCH_ROWS - 1)))


def as_table(errors: Iterable[NamedError]) -> pa.RecordBatch:
    """Return bad rows as columns."""
    return pa.RecordBatch.from_pylist([_row(named.file.uri, named.error) for named in errors], COLUMNS)


def as_lines(errors: Iterable[NamedError], job: str) -> bytes:
    """Return those bad rows that are requests of an OpenAI batch, as lines of its error file."""
    requests = (named.error for named in errors if named.file.format == "openai")
    return b"".join(error_line(job, _custom_id(error), error.type, error.message) for error in requests)


def _row(uri: str, error: JobError) -> dict[str, Any]:
    return {
        "file": uri,
        "row": error.row,
        "line": error.line or None,
        "stage": error.stage,
        "type": error.type,
        "message": error.message,
        "input": error.input[:MAX_INPUT_BYTES] or None,
        "retry": error.retry,
    }


def _custom_id(error: JobError) -> str | None:
    """Return the custom_id of a request, None if the line has none or is cut off or no JSON."""
    try:
        request = msgspec.json.decode(error.input)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found = request.get(CUSTOM_ID) if isinstance(request, dict) else None
    return found if isinstance(found, str) else None
