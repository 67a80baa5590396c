"""The contract of a preparation: rows as they were read become tensors of a model."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.contracts.tensors.codec import Tensors


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
    together; None when all are alike.
    """

    good: NDArray[np.int64]
    refused: list[Refused]
    skipped: NDArray[np.int64]
    lengths: NDArray[np.int64] | None

    def tensors(self, which: NDArray[np.int64]) -> Tensors:
        """Return the model's inputs for some of the good rows. which: indexes into `good`.

        Padded no further than these rows need.
        """
        ...


class Preparation(Protocol):
    """Prepares tables of one schema for one model. For one thread."""

    #: The columns of the input that are needed: for the model's inputs, and those that are kept.
    columns: tuple[str, ...]

    def prepare(self, table: pa.RecordBatch) -> PreparedRows:
        """Prepare the rows of a table; one bad row affects no other."""
        ...
