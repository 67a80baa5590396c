"""A model's signature: names, datatypes and shapes of its inputs and outputs, and the check of a request against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import PackageError, SignatureMismatch, quoted
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.tensors.codec import MAX_DIMENSIONS, Tensors, as_array
from headrace.contracts.tensors.datatypes import FLOATS, all_finite, datatype_of, dtype_of

#: How many names that the model does not know an error lists.
_NAMED_UNKNOWN: Final = 5


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output.

    shape: without the row dimension; -1 varies. rows_at: which dimension of the whole tensor holds the rows.
    per_request: the tensor has no row dimension, so that a request holds it once, whatever its rows, and `shape` is
    whole; requests share a run only if they agree on such an input.
    symbols: a name for each size of `shape`, "" for none; sizes of one name are equal throughout a request.
    optional: a request may leave the input out. sequence: the model takes or gives a list of tensors, which a request
    holds stacked along an added first dimension. allow_nan: whether NaN and infinity may occur.
    sample_shape: sizes in place of `shape` that the model is known to run. decode: how bulk jobs make a row of an
    encoded image, if they can.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    rows_at: int = 0
    per_request: bool = False
    symbols: tuple[str, ...] = ()
    optional: bool = False
    sequence: bool = False
    any_shape: bool = False
    allow_nan: bool = True
    sample_shape: tuple[int, ...] = ()
    decode: ImageDecode | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuse a datatype that OIP v2 does not have, impossible sizes, and fields that contradict each other."""
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
        self._check_rows()
        self._check_names()
        self._check_decode()

    def _check_rows(self) -> None:
        if not 0 <= self.rows_at <= len(self.shape):
            raise PackageError(
                f"tensor {self.name!r}: rows_at is {self.rows_at}, but with its rows the tensor has the dimensions "
                f"0 to {len(self.shape)}"
            )
        if self.per_request and self.rows_at:
            raise PackageError(f"tensor {self.name!r} is per_request, so it has no rows; leave rows_at out")
        if self.any_shape and (self.shape or not self.per_request):
            raise PackageError(f"tensor {self.name!r} has any_shape; it must be per_request, its shape left out")
        if self.sequence and not self.any_shape and not (self.shape and (self.per_request or self.rows_at)):
            raise PackageError(
                f"tensor {self.name!r} is a sequence; it must be per_request or have its rows_at 1 or more, its length "
                "first in shape"
            )

    def _check_names(self) -> None:
        if self.symbols and len(self.symbols) != len(self.shape):
            raise PackageError(f"tensor {self.name!r} has {len(self.shape)} sizes, but {len(self.symbols)} symbols")
        if any(symbol and size != -1 for symbol, size in zip(self.symbols, self.shape, strict=bool(self.symbols))):
            raise PackageError(f'tensor {self.name!r}: only sizes of -1 have symbols, "" stands for none')
        if self.sample_shape and (
            len(self.sample_shape) != len(self.shape)
            or any(have < 1 or want not in (-1, have) for want, have in zip(self.shape, self.sample_shape, strict=True))
        ):
            raise PackageError(f"tensor {self.name!r}: sample_shape must be sizes above 0 that fit {list(self.shape)}")

    def _check_decode(self) -> None:
        if self.decode is msgspec.UNSET:
            return
        if self.sequence or self.any_shape:
            raise PackageError(f"tensor {self.name!r} can't be decoded from images; leave its decode out")
        try:
            self.decode.check(self.datatype, self.shape)
        except PackageError as exc:
            raise PackageError(f"[inputs.decode] of {self.name!r}: {exc.message}") from None

    def describe(self) -> str:
        """Write the spec as people read it, such as `image FP32 [rows, 1, 8, 8]`."""
        names = self.symbols or ("",) * len(self.shape)
        sizes = [name or ("?" if size == -1 else str(size)) for size, name in zip(self.shape, names, strict=True)]
        if not self.per_request:
            sizes.insert(self.rows_at, "rows")
        if self.any_shape:
            sizes = ["any shape"]
        notes = ", optional" * self.optional + ", a sequence" * self.sequence
        return f"{self.name} {self.datatype} [{', '.join(sizes)}]{notes}"

    @property
    def row_axis(self) -> int | None:
        """The dimension of the whole tensor that holds the rows; None when it has none."""
        return None if self.per_request else self.rows_at

    def whole_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the whole tensor for a number of rows; -1 still varies."""
        if self.per_request:
            return self.shape
        return (*self.shape[: self.rows_at], rows, *self.shape[self.rows_at :])

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether a whole tensor of this shape fits, whatever its rows."""
        if self.rows_at == 0 and not self.per_request and shape[1:] == self.shape:
            return bool(shape)
        if self.any_shape:
            return True
        wanted = self.whole_shape(-1)
        return len(shape) == len(wanted) and all(want in (-1, have) for want, have in zip(wanted, shape, strict=True))

    @property
    def varies(self) -> bool:
        """Whether some dimension besides the rows is free, so that requests must be bucketed by shape."""
        return -1 in self.shape


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs and outputs of a model, in the order of the model file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def has_rows_first(self) -> bool:
        """Whether every tensor has its rows in the first dimension and no input may be left out: nearly every model."""
        tensors = (*self.inputs, *self.outputs)
        return not any(spec.per_request or spec.rows_at or spec.optional for spec in tensors)

    def check_inputs(self, given: Mapping[str, object]) -> Tensors:
        """Check one request and return its arrays.

        Arrays must have the input's datatype exactly; anything else (nested lists, numbers) is converted to it.
        Raises SignatureMismatch naming the input, what was expected and what was found.
        """
        # The first question alone is asked of every request; it is five times as fast.
        if not isinstance(given, dict) and not isinstance(given, Mapping):
            raise SignatureMismatch(f"the inputs must be a dict of name → array, not {type(given).__name__}")
        if given.keys() != {spec.name for spec in self.inputs}:
            self._check_names(given)
        specs = [spec for spec in self.inputs if spec.name in given]
        arrays = {spec.name: check_tensor(spec, given[spec.name]) for spec in specs}
        self._check_rows(specs, arrays)
        check_symbols(specs, arrays)
        return arrays

    def rows_of(self, arrays: Tensors) -> int:
        """Return how many rows checked inputs have; 1 when none of them has rows."""
        for spec in self.inputs:
            if not spec.per_request and spec.name in arrays:
                return int(arrays[spec.name].shape[spec.rows_at])
        return 1

    def _check_names(self, given: Mapping[str, object]) -> None:
        expected = [spec.name for spec in self.inputs]
        missing = [spec.name for spec in self.inputs if spec.name not in given and not spec.optional]
        unknown = [name for name in given if name not in expected]
        if not missing and not unknown and given:
            return
        problem = "; ".join(
            [f"input {name!r} is missing" for name in missing]
            + [f"input {quoted(name)} is unknown" for name in unknown[:_NAMED_UNKNOWN]]
            + [f"{len(unknown) - _NAMED_UNKNOWN} more are unknown"] * (len(unknown) > _NAMED_UNKNOWN)
        )
        takes = ", ".join(f"{spec.name!r}{' (optional)' * spec.optional}" for spec in self.inputs)
        raise SignatureMismatch(f"{problem or 'the request has no inputs'}; the model takes {takes}")

    @staticmethod
    def _check_rows(specs: Sequence[TensorSpec], arrays: Tensors) -> None:
        rows = {spec.name: arrays[spec.name].shape[spec.rows_at] for spec in specs if not spec.per_request}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise SignatureMismatch(f"every input must have the same number of rows, but they have: {counts}")
        with_rows = [arrays[name] for name in rows]
        if with_rows and not any(array.size for array in with_rows):
            # Such a request would hold no data at all, and yet could claim any number of rows.
            shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in rows)
            raise SignatureMismatch(f"every input has an empty dimension ({shapes}); a request must hold some data")


def check_tensor(spec: TensorSpec, value: object) -> NDArray[Any]:
    """Check one input against its spec and return it as an array. Raises SignatureMismatch."""
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
    if not spec.takes(shape):
        where = "" if spec.per_request else ", rows first" if spec.rows_at == 0 else f", rows at {spec.rows_at}"
        raise SignatureMismatch(
            f"input {spec.name!r} must have the shape of {spec.describe()}{where}, but has {list(shape)}"
            f"{_hint(spec, shape)}"
        )
    if not spec.per_request and shape[spec.rows_at] == 0:
        raise SignatureMismatch(f"input {spec.name!r} has zero rows; a request holds at least one")
    if not spec.allow_nan and spec.datatype in FLOATS and not all_finite(array):
        raise SignatureMismatch(
            f"input {spec.name!r} holds NaN or infinity, which this model forbids (allow_nan in its model.toml)"
        )
    return array


def _hint(spec: TensorSpec, shape: tuple[int, ...]) -> str:
    """Return the remedy where an input is one row without the dimension of the rows."""
    if spec.per_request or spec.rows_at or not spec.takes((1, *shape)):
        return ""
    return f"; one row goes as {spec.name}[None], or in another pair of brackets"


def check_symbols(specs: Sequence[TensorSpec], arrays: Tensors) -> dict[str, int]:
    """Return the size of each symbol in checked inputs. Raises SignatureMismatch when two tensors disagree on one."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for spec in specs:
        if not any(spec.symbols):
            continue
        whole = arrays[spec.name].shape
        shape = whole if spec.per_request else whole[: spec.rows_at] + whole[spec.rows_at + 1 :]
        for symbol, size in zip(spec.symbols, shape, strict=True):
            if symbol and sizes.setdefault(symbol, size) != size:
                raise SignatureMismatch(
                    f"the dimension {symbol!r} must be the same everywhere, but it is {sizes[symbol]} in "
                    f"{first[symbol]!r} and {size} in {spec.name!r}"
                )
            first.setdefault(symbol, spec.name)
    return sizes


def _found(spec: TensorSpec, array: NDArray[Any]) -> str:
    try:
        return datatype_of(array.dtype)
    except SignatureMismatch as exc:
        raise SignatureMismatch(f"input {spec.name!r} must be {spec.datatype}: {exc.message}") from None
