"""The rest of a slice: what is left when a shard ends before its end. Pure."""

from __future__ import annotations

import msgspec

from headrace.results_store.jobs.records import Slice


def rest_of(part: Slice, file_no: int, next_row: int, rows_done: int) -> Slice | None:
    """Return what is left of a slice from row `next_row` of file `file_no` on; None if nothing is, as far as known.

    rows_done: of the slice, in all.
    """
    if part.rows >= 0 and rows_done >= part.rows:
        return None
    files = part.files - (file_no - part.file_no)
    rows = part.rows - rows_done if part.rows >= 0 else -1
    left = rows / part.rows if part.rows > 0 else files / part.files
    return msgspec.structs.replace(
        part,
        file_no=file_no,
        files=files,
        row_start=next_row,
        rows=rows,
        size_bytes=int(part.size_bytes * left),
        est_s=part.est_s * left,
    )


def done_of(part: Slice, rest: Slice | None, rows_done: int) -> Slice:
    """Return what of a slice was done, given its rest."""
    if rest is None:
        return msgspec.structs.replace(part, rows=rows_done)
    files = rest.file_no - part.file_no + (1 if rest.row_start > 0 else 0)
    return msgspec.structs.replace(
        part,
        files=max(files, 1),
        rows=rows_done,
        size_bytes=part.size_bytes - rest.size_bytes,
        est_s=part.est_s - rest.est_s,
    )
