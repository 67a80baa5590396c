"""Parts in JSON lines: one object a row, all columns in each."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.bulk.sinks.formats.cells import dumps, json_values
from headrace.bulk.sinks.formats.lines import LinesPart


class JsonLinesPart(LinesPart):
    """A part in JSON lines."""

    def _lines(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        names = batch.schema.names
        columns = [json_values(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dumps(dict(zip(names, values, strict=True)))
