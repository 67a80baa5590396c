"""The contract of a preparation: rows as they were read become tensors of a model."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.contracts.errors import HeadraceError
from headrace.contracts.tensors.codec import Tensors


class ColumnMismatch(HeadraceError):
    """The columns of the input don't fit the model; `--map COLUMN=INPUT` says which column is which input."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A row that can't be prepared. at: its position in the table. stage: decode or prepare."""

    at: int
    stage: str
    type: str
    message: str


class PreparedRows(Protocol):
    """The rows of one table that are ready for the model.

    good: positions in the table of rows that can be run, in order. refused: bad rows. skipped: positions left out on
    purpose. lengths: of variable-length rows (tokens) by index into `good`, so that those of similar length can run
    together; None when all are alike. groups: of rows whose shapes differ and that can't be padded, by index into
    `good`: only rows of one group may share a batch; None when all may.
    """

    good: NDArray[np.int64]
    refused: list[Refused]
    skipped: NDArray[np.int64]
    lengths: NDArray[np.int64] | None
    groups: NDArray[np.int64] | None

    def tensors(self, which: NDArray[np.int64]) -> Tensors:
        """Return the model's inputs for some of the good rows. which: indexes into `good`.

        Padded no further than these rows need.
        """
        ...


class Preparation(Protocol):
    """Prepares tables of one schema for one model. For one thread."""

    #: The columns of the input that are needed: for the model's inputs, and those that are kept.
    columns: tuple[str, ...]

    #: Those of them that are inputs of floats: integers in text files are floats there.
    float_columns: tuple[str, ...]

    #: What was chosen where nobody said it, such as "the columns f1 to f64, in order, are the input x"; for a person.
    notes: tuple[str, ...]

    #: Most rows of a table that should be prepared at once, since decoded ones are larger; 0 is no bound.
    rows_at_once: int

    #: Whether a column may name files; then each table must be of files of one folder.
    reads_paths: bool

    #: URI of the file that the tables are of, from which relative paths in a column start; set before `prepare`.
    file_uri: str

    def prepare(self, table: pa.RecordBatch) -> PreparedRows:
        """Prepare the rows of a table; one bad row affects no other."""
        ...
