"""What a model takes and gives: names, datatypes and shapes; and the check of one request against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts.datatypes import FLOATS, all_finite, datatype_of, dtype_of
from headrace.contracts.errors import PackageError, SignatureMismatch, quoted
from headrace.contracts.tensors import MAX_DIMENSIONS, Tensors, as_array

#: How many names that the model does not know an error lists.
_NAMED_UNKNOWN: Final = 5


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output.

    shape: without the row dimension; -1 varies. allow_nan: whether NaN and infinity may occur.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    allow_nan: bool = True

    def __post_init__(self) -> None:
        """Refuse a datatype that OIP v2 does not have, and sizes below -1."""
        try:
            dtype_of(self.datatype)
        except SignatureMismatch as exc:
            raise PackageError(f"tensor {self.name!r}: {exc.message}") from None
        if not self.name or not self.name.isprintable():
            raise PackageError(f"tensor name {quoted(self.name)} must be printable and not empty")
        if len(self.shape) >= MAX_DIMENSIONS:
            raise PackageError(f"tensor {self.name!r} has more than {MAX_DIMENSIONS} dimensions")
        if any(size < -1 or size == 0 for size in self.shape):
            raise PackageError(f"tensor {self.name!r}: shape {list(self.shape)} may hold sizes above 0, or -1")

    def describe(self) -> str:
        """Write the spec as people read it, such as `image FP32 [rows, 1, 8, 8]`."""
        sizes = ", ".join(["rows", *("?" if size == -1 else str(size) for size in self.shape)])
        return f"{self.name} {self.datatype} [{sizes}]"

    @property
    def varies(self) -> bool:
        """Whether some dimension besides the rows is free, so that requests must be bucketed by shape."""
        return -1 in self.shape


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs and outputs of a model, in the order of the model file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_inputs(self, given: Mapping[str, object]) -> Tensors:
        """Check one request and give its arrays, rows first.

        Arrays must have the input's datatype exactly; anything else (nested lists, numbers) is converted to it.
        Raises SignatureMismatch naming the input, what was expected and what was found.
        """
        # The first question alone is asked of every request; it is five times as fast.
        if not isinstance(given, dict) and not isinstance(given, Mapping):
            raise SignatureMismatch(f"the inputs must be a dict of name → array, not {type(given).__name__}")
        if given.keys() != {spec.name for spec in self.inputs}:
            self._refuse_names(given)
        arrays = {spec.name: check_tensor(spec, given[spec.name]) for spec in self.inputs}
        rows = {name: array.shape[0] for name, array in arrays.items()}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise SignatureMismatch(f"every input must have the same number of rows, but they have: {counts}")
        return arrays

    def _refuse_names(self, given: Mapping[str, object]) -> None:
        expected = [spec.name for spec in self.inputs]
        missing = [name for name in expected if name not in given]
        unknown = [name for name in given if name not in expected]
        problem = "; ".join(
            [f"input {name!r} is missing" for name in missing]
            + [f"input {quoted(name)} is unknown" for name in unknown[:_NAMED_UNKNOWN]]
            + [f"{len(unknown) - _NAMED_UNKNOWN} more are unknown"] * (len(unknown) > _NAMED_UNKNOWN)
        )
        raise SignatureMismatch(f"{problem}; the model takes {', '.join(map(repr, expected))}")


def check_tensor(spec: TensorSpec, value: object) -> NDArray[Any]:
    """Check one input against its spec and give it as an array, rows first. Raises SignatureMismatch."""
    array = value if isinstance(value, np.ndarray) else as_array(value, spec.datatype, spec.name)
    if array.dtype != dtype_of(spec.datatype) or spec.datatype == "BYTES":
        found = _found(spec, array)
        if found != spec.datatype:
            raise SignatureMismatch(
                f"input {spec.name!r} must be {spec.datatype}, but is {found}; cast it, for example "
                f"with .astype({dtype_of(spec.datatype).name!r})"
            )
        array = as_array(array, spec.datatype, spec.name)
    shape = array.shape
    if len(shape) != len(spec.shape) + 1 or any(
        want not in (-1, have) for want, have in zip(spec.shape, shape[1:], strict=True)
    ):
        raise SignatureMismatch(
            f"input {spec.name!r} must have the shape of {spec.describe()}, rows first, but has {list(shape)}"
        )
    if shape[0] == 0:
        raise SignatureMismatch(f"input {spec.name!r} has zero rows; a request holds at least one")
    if 0 in shape:
        # Such a request would hold no data at all, and yet could claim any number of rows.
        raise SignatureMismatch(f"input {spec.name!r} has an empty dimension in its shape {list(shape)}")
    if not spec.allow_nan and spec.datatype in FLOATS and not all_finite(array):
        raise SignatureMismatch(f"input {spec.name!r} holds NaN or infinity, which this model forbids")
    return array


def _found(spec: TensorSpec, array: NDArray[Any]) -> str:
    try:
        return datatype_of(array.dtype)
    except SignatureMismatch as exc:
        raise SignatureMismatch(f"input {spec.name!r} must be {spec.datatype}: {exc.message}") from None
