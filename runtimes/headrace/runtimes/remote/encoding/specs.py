"""Signatures from what servers tell of their models, and outputs that differ from them in dimensions of 1 only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from headrace.contracts.errors import PackageError, quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.runtimes.remote.base import RemoteSignature


class Described(msgspec.Struct, frozen=True):
    """A tensor as a server describes it. shape: whole, -1 varies; None if the server doesn't know it."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None


def signature_of(inputs: Sequence[Described], outputs: Sequence[Described], version: str = "") -> RemoteSignature:
    """Return the signature of a model whose tensors all have their rows first.

    Where the server says one number of rows for every tensor, it takes batches of that size alone.
    Raises PackageError for a tensor without rows, and for tensors of different numbers of rows.
    """
    rows = {
        tensor.name: _rows(tensor, side) for side, part in (("input", inputs), ("output", outputs)) for tensor in part
    }
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {'any' if count == -1 else count}" for name, count in rows.items())
        raise PackageError(
            f"the tensors of the server's model must have the same number of rows, but it says: {counts}"
        )
    fixed = next(iter(rows.values()), -1)
    return RemoteSignature(
        inputs=tuple(map(_spec, inputs)),
        outputs=tuple(map(_spec, outputs)),
        version=version,
        max_rows=max(fixed, 0),
        row_sizes=(fixed,) if fixed > 0 else (),
    )


def _rows(tensor: Described, side: str) -> int:
    if tensor.shape is None:
        raise PackageError(
            f"the server doesn't know the shape of {side} {quoted(tensor.name)}; export the model with its shapes, or "
            "write its inputs and outputs into a model.toml by hand"
        )
    if not tensor.shape:
        raise PackageError(
            f"the server's model has no rows in its {side} {quoted(tensor.name)}, a scalar; batches need a leading "
            "dimension of rows in every tensor"
        )
    return tensor.shape[0]


def _spec(tensor: Described) -> TensorSpec:
    if tensor.datatype not in DTYPES:
        raise PackageError(
            f"tensor {quoted(tensor.name)} of the server's model is {quoted(tensor.datatype)}, which headrace has not"
        )
    assert tensor.shape
    return TensorSpec(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape[1:])


def fitted(array: NDArray[Any], spec: TensorSpec, rows: int) -> NDArray[Any]:
    """Return an output in the shape of its spec if it differs in dimensions of 1 only, else as it is.

    Several servers answer [rows, 1] where the model's output is [rows].
    """
    wanted = spec.whole_shape(rows)
    if spec.takes(array.shape) or -1 in wanted:
        return array
    if [size for size in array.shape if size != 1] != [size for size in wanted if size != 1]:
        return array
    return array.reshape(wanted)
