"""The contract of a feed: columns of a table become one or more inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.findings import Findings, taken
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import FLOATS


class FedRows(Protocol):
    """The rows of a table as inputs of a model. What a refused row holds means nothing.

    lengths: of variable-length rows that are padded; None when there are none. dims: the sizes of each row, [rows,
    sizes], where they vary and can't be padded; None when they don't. symbols: names of the sizes.
    """

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Of each row."""

    @property
    def dims(self) -> NDArray[np.int64] | None:
        """Of each row."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of each size."""

    def take(self, rows: NDArray[np.int64]) -> Tensors:
        """Return the inputs of some rows of the table."""
        ...


class Feed(Protocol):
    """Makes inputs of columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    @property
    def float_columns(self) -> tuple[str, ...]:
        """Those of them whose numbers become floats."""

    def feed(self, table: pa.RecordBatch, findings: Findings) -> FedRows:
        """Read all rows of a table; those that can't be used are added to the findings."""
        ...


def float_columns(columns: tuple[str, ...], spec: TensorSpec) -> tuple[str, ...]:
    """Return columns if the input that they are is one of floats."""
    return columns if spec.datatype in FLOATS else ()


class EqualRows:
    """Rows of one shape."""

    lengths = None
    dims = None
    symbols = ()

    def __init__(self, spec: TensorSpec, values: NDArray[Any]) -> None:
        """values: all rows, rows first."""
        self._spec = spec
        self._values = values

    def take(self, rows: NDArray[np.int64]) -> Tensors:
        """Return the input of some rows; a view where they follow each other."""
        return {self._spec.name: placed(self._spec, taken(self._values, rows))}


def check_symbols(fed: Sequence[FedRows], findings: Findings) -> None:
    """Refuse rows in which sizes of one name differ."""
    first: dict[str, NDArray[np.int64]] = {}
    for rows in fed:
        if rows.dims is None:
            continue
        for place, symbol in enumerate(rows.symbols):
            sizes = rows.dims[:, place]
            known = first.setdefault(symbol, sizes)
            for at in np.flatnonzero(known != sizes).tolist() if symbol else ():
                message = (
                    f"the size {symbol!r} is {known[at]} in one input and {sizes[at]} in another; it must be the same"
                )
                findings.refuse([at], "WrongShape", message)


def placed(spec: TensorSpec, values: NDArray[Any]) -> NDArray[Any]:
    """Return rows as the tensor that the model takes. values: rows first.

    Raises ValueError for more than one row of a tensor without rows.
    """
    if spec.per_request:
        if len(values) != 1:
            raise ValueError(f"{spec.name} has no dimension for rows: they run one by one")
        single: NDArray[Any] = values[0]
        return single
    return values if not spec.rows_at else np.moveaxis(values, 0, spec.rows_at)
