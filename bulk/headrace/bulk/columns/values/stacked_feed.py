"""Several columns of numbers as one input: each is an element of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace.bulk.columns.feeds import EqualRows, FedRows, float_columns
from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.kinds import is_text, plain
from headrace.bulk.columns.nulls import NullPolicy
from headrace.bulk.columns.values.cells import without_empty
from headrace.bulk.columns.values.leaves import LeafReader
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.datatypes import dtype_of


class StackedFeed:
    """Makes an input of several columns, in order."""

    def __init__(self, columns: Sequence[str], spec: TensorSpec, policy: NullPolicy) -> None:
        """columns: as many as the input has elements."""
        self.columns = tuple(columns)
        self.float_columns = float_columns(self.columns, spec)
        self._spec = spec
        element = TensorSpec(name=spec.name, datatype=spec.datatype, allow_nan=spec.allow_nan)
        self._readers = [LeafReader(column, element, policy) for column in columns]

    def feed(self, table: pa.RecordBatch, findings: Findings) -> FedRows:
        """Read all rows of a table."""
        rows = table.num_rows
        values = np.empty((rows, len(self.columns)), dtype_of(self._spec.datatype))
        starts, counts = np.arange(rows), np.ones(rows, np.int64)
        for place, (column, reader) in enumerate(zip(self.columns, self._readers, strict=True)):
            array = plain(table.column(column))
            if is_text(array.type) and self._spec.datatype != "BYTES":
                array = without_empty(array)
            values[:, place], _ = reader.read(array, starts, counts, None, findings)
        return EqualRows(self._spec, values.reshape(rows, *self._spec.shape))
