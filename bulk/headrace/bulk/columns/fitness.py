"""Whether a column's type can be an input of a model, before any row is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa

from headrace.bulk.columns.kinds import is_binary, is_number, is_text, nesting, plain_type
from headrace.contracts.package.signature import TensorSpec


def tensor_problem(name: str, kind: pa.DataType, spec: TensorSpec) -> str:
    """Return why a column can't be an input as numbers, lists or strings; "" if it can."""
    depth, leaf = nesting(kind)
    wanted = spec.describe()
    if pa.types.is_temporal(leaf):
        return f"column {name!r} is {leaf}, but {wanted} is wanted; make numbers of its times first, such as seconds"
    if not _leaf_fits(leaf, spec):
        return f"column {name!r} is {kind}, but {wanted} is wanted"
    if not depth and (is_text(leaf) or pa.types.is_null(leaf)):
        return ""  # Lists may be JSON, and a column that holds nothing has no type.
    ones = all(size == 1 for size in spec.shape)
    depths = {len(spec.shape), sum(size != 1 for size in spec.shape)} | ({0} if ones else {1})
    if spec.shape.count(-1) > 1:
        depths -= {1}
    if depth not in depths:
        return f"column {name!r} is {kind}, but {wanted} is wanted{_columns_hint(name, depth, spec)}"
    count, size = math.prod(spec.shape), _fixed_count(kind)
    if -1 not in spec.shape and size is not None and size != count:
        return f"column {name!r} holds {size} values in each row, but {wanted} takes {count}"
    return ""


def image_problem(name: str, kind: pa.DataType, spec: TensorSpec) -> str:
    """Return why a column can't be images; "" if it holds encoded ones, paths of files, or tensors."""
    plain = plain_type(kind)
    if is_binary(plain) or is_text(plain) or pa.types.is_null(plain) or is_image_struct(plain):
        return ""
    depth, leaf = nesting(plain)
    if depth and is_number(leaf):
        return tensor_problem(name, kind, spec)
    return f"column {name!r} is {kind}, but {spec.name!r} needs images: encoded ones (bytes), or paths of files"


def is_image_struct(kind: pa.DataType) -> bool:
    """Return whether rows are structs of bytes and path, as Hugging Face's datasets write images."""
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def text_problem(name: str, kind: pa.DataType) -> str:
    """Return why a column can't be text; "" if it can."""
    plain = plain_type(kind)
    return "" if is_text(plain) or pa.types.is_null(plain) else f"column {name!r} is {kind}, but text is wanted"


def stacked_problem(columns: Sequence[tuple[str, pa.DataType]], spec: TensorSpec) -> str:
    """Return why several columns can't be the elements of an input, in their order; "" if they can."""
    if -1 in spec.shape:
        return f"several columns can't be {spec.describe()}, whose size varies; a column of lists can"
    count = math.prod(spec.shape)
    if len(columns) != count:
        return f"{len(columns)} columns are mapped to {spec.name!r}, which takes {count} values: {spec.describe()}"
    element = TensorSpec(name=spec.name, datatype=spec.datatype)
    return next((problem for name, kind in columns if (problem := tensor_problem(name, kind, element))), "")


def _leaf_fits(leaf: pa.DataType, spec: TensorSpec) -> bool:
    if pa.types.is_null(leaf) or is_text(leaf):
        return True
    return is_binary(leaf) if spec.datatype == "BYTES" else is_number(leaf)


def _fixed_count(kind: pa.DataType) -> int | None:
    """Return how many values each row holds, where the type says so."""
    count = 1
    kind = plain_type(kind)
    while pa.types.is_fixed_size_list(kind):
        count *= kind.list_size
        kind = plain_type(kind.value_type)
    return None if nesting(kind)[0] else count


def _columns_hint(name: str, depth: int, spec: TensorSpec) -> str:
    if depth or -1 in spec.shape:
        return ""
    return f"; if each value is a column of its own, name all of them: --map {name},…={spec.name}"
