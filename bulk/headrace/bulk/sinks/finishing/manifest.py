"""`_manifest.json`: what a job computed, of which files, into which parts; written piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.bulk.sinks.finishing.outcome import Outcome
from headrace.results_store.jobs.records import InputFile, Part


class ErrorPart(msgspec.Struct, frozen=True, kw_only=True):
    """A file of bad rows in the output folder."""

    name: str
    rows: int
    etag: str
    bytes: int


def manifest_lines(outcome: Outcome, parts: Iterable[Part], errors: Iterable[ErrorPart]) -> Iterator[bytes]:
    """Yield the lines of a manifest: one JSON object, with a line for each file and part."""
    job, sums = outcome.job, outcome.sums
    head = {
        "job": outcome.id,
        "key": outcome.key,
        "state": outcome.state.value,
        "name": job.name,
        "model": job.spec.model,
        "version": job.version,
        "package_sha256": job.package_sha256,
        "retry": job.retry,
        "error": job.error,
        "created_at": job.created_at,
        "ended_at": outcome.ended_at,
        "spec": job.spec,
        "rows": {"in": sums.rows_in, "ok": sums.rows_ok, "bad": sums.rows_bad, "skipped": sums.rows_skipped},
    }
    yield b"{\n"
    for name, value in head.items():
        yield b"%b:%b,\n" % (msgspec.json.encode(name), msgspec.json.encode(value))
    yield from _list(b'"files":[', (_file(file) for file in outcome.files()), b"],\n")
    yield from _list(b'"errors":[', errors, b"],\n")
    yield from _list(b'"parts":[', (_part(part) for part in parts), b"]\n}\n")


def _list(start: bytes, items: Iterable[Any], stop: bytes) -> Iterator[bytes]:
    yield start
    for at, item in enumerate(items):
        yield (b",\n" if at else b"\n") + msgspec.json.encode(item)
    yield stop


def _file(file: InputFile) -> dict[str, Any]:
    return {"uri": file.uri, "size": file.size, "etag": file.etag, "mtime_ns": file.mtime_ns, "rows": file.rows}


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "rows": part.rows_ok,
        "bad": part.rows_bad,
        "skipped": part.rows_skipped,
        "file_no": part.slice.file_no,
        "row_start": part.slice.row_start,
        "etag": part.etag,
        "bytes": part.bytes,
    }
