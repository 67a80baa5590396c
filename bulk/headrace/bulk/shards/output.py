"""The output of a shard: the outputs of a model as columns, in the order of the input, in a part or for the store."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.output import OutputColumns
from headrace.bulk.shards.groups import Raw
from headrace.bulk.sinks.base import PartWriter
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes


class PartOutput:
    """Writes the rows of a shard into a part."""

    def __init__(self, part: PartWriter, columns: OutputColumns, axes: RowAxes) -> None:
        """axes: of the model's outputs."""
        self._part: Final = part
        self._columns: Final = columns
        self._axes: Final = axes

    @property
    def size_bytes(self) -> int:
        """About how many bytes were written."""
        return self._part.size_bytes

    def write(self, raw: Raw, which: NDArray[np.int64], outputs: list[Tensors]) -> None:
        """Write rows. which: their positions in `raw.table`; outputs: of pieces of them, in order."""
        for batch in in_input_order(raw, which, outputs, self._columns, self._axes):
            self._part.write(batch)


def in_input_order(
    raw: Raw, which: NDArray[np.int64], outputs: list[Tensors], columns: OutputColumns, axes: RowAxes
) -> list[pa.RecordBatch]:
    """Return rows of the output in the order of the input, whatever the order in which they ran."""
    if _are_alike(outputs):
        outputs = [axes.join(outputs)]
    counts = [axes.count(piece) for piece in outputs]
    starts = np.cumsum([0, *counts])
    batches = [
        columns.batch(piece, _rows(raw.table, which[start : start + count]))
        for piece, start, count in zip(outputs, starts, counts, strict=False)
    ]
    if bool(np.all(which[:-1] < which[1:])):
        return batches
    table = pa.Table.from_batches(batches).take(pa.array(np.argsort(which, kind="stable")))
    return list(table.combine_chunks().to_batches())


def _are_alike(outputs: list[Tensors]) -> bool:
    """Return whether outputs can be joined: they differ in their rows only."""
    shapes = [{name: (array.ndim, array.shape[1:]) for name, array in piece.items()} for piece in outputs]
    return all(shape == shapes[0] for shape in shapes[1:])


def _rows(table: pa.Table, which: NDArray[np.int64]) -> pa.RecordBatch:
    whole = table.num_rows == len(which) and (len(which) == 0 or (which[0] == 0 and which[-1] == len(which) - 1))
    chosen = table if whole and bool(np.all(which[:-1] < which[1:])) else table.take(pa.array(which))
    batches = chosen.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], chosen.schema)
