"""Soundness of what pyarrow decodes: it trusts strings to be UTF-8, and Arrow files to have offsets that fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bulk.sources.base import RowBatch
from headrace.bulk.sources.reading import bad_row, first_line, unreadable
from headrace.results_store.jobs.records import InputFile


def sound(file: InputFile, batches: Iterable[RowBatch]) -> Iterator[RowBatch]:
    """Yield batches whose values can be used; a row with one that can't is bad. Costs next to nothing otherwise.

    Raises InputUnreadable when more than single rows are damaged.
    """
    for batch in batches:
        try:
            batch.table.validate(full=True)
        except pa.ArrowInvalid:
            yield _without_damage(file, batch)
        else:
            yield batch


def _without_damage(file: InputFile, batch: RowBatch) -> RowBatch:
    damaged: dict[int, str] = {}
    for name, column in zip(batch.table.schema.names, batch.table.columns, strict=True):
        if _problem(column) is not None:
            for at in range(len(column)):
                problem = _problem(column.slice(at, 1))
                if problem is not None:
                    damaged.setdefault(at, f"column {name!r} is damaged: {problem}")
    keep = np.delete(np.arange(len(batch.rows)), list(damaged))
    table = batch.table.take(pa.array(keep))
    problem = _problem(table) if damaged else "its offsets don't fit"
    if problem is not None:
        raise unreadable(file, f"is damaged: {problem}")
    bad = [bad_row(file, int(batch.rows[at]), reason) for at, reason in sorted(damaged.items())]
    return msgspec.structs.replace(batch, table=table, rows=batch.rows[keep], bad=[*batch.bad, *bad])


def _problem(values: pa.Array | pa.RecordBatch) -> str | None:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as exc:
        return first_line(exc)
    return None
