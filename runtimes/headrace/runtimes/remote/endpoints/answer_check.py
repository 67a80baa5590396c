"""The check of a server's answer, so that no row can move from one request to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import FLOATS, all_finite, datatype_of
from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.encoding.specs import fitted


def checked(outputs: Tensors, specs: Sequence[TensorSpec], rows: int, nan: Literal["allow", "refuse"]) -> Tensors:
    """Return the outputs that a package names, in its shapes. rows: of the batch.

    Raises BadAnswer that names the output which is missing, or has another datatype, shape or number of rows.
    """
    return {spec.name: _checked(outputs, spec, rows, nan) for spec in specs}


def _checked(outputs: Tensors, spec: TensorSpec, rows: int, nan: str) -> NDArray[Any]:
    array = outputs.get(spec.name)
    if array is None:
        found = ", ".join(quoted(name) for name in list(outputs)[:8]) or "none"
        raise BadAnswer(f"the server's answer has no output {quoted(spec.name)}; its outputs are: {found}")
    datatype = datatype_of(array.dtype)
    if datatype != spec.datatype:
        raise BadAnswer(f"the server answered {spec.name!r} as {datatype}, but model.toml says {spec.datatype}")
    if not spec.per_request and array.ndim > spec.rows_at and array.shape[spec.rows_at] != rows:
        raise BadAnswer(f"the server answered {array.shape[spec.rows_at]} rows of {spec.name!r} for {rows} rows")
    array = fitted(array, spec, rows)
    if not spec.takes(array.shape):
        raise BadAnswer(
            f"the server answered {spec.name!r} in the shape {list(array.shape)} for {rows} rows, but model.toml says "
            f"{spec.describe()}"
        )
    if nan == "refuse" and spec.datatype in FLOATS and not all_finite(array):
        raise BadAnswer(f"the server answered NaN or infinity in {spec.name!r}, which the package refuses")
    return array
