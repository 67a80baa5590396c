"""Types of columns, as far as a model is concerned."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_text(kind: pa.DataType) -> bool:
    """Return whether values are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Return whether values are bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Return whether values are numbers or truth values."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Return whether values are lists."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type behind an extension type or a dictionary."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def plain(array: pa.Array) -> pa.Array:
    """Return an array without an extension type, a dictionary or views."""
    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        elif pa.types.is_dictionary(kind):
            array = array.dictionary_decode()
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            array = _without_view(array)
        elif pa.types.is_string_view(kind):
            array = pc.cast(array, pa.large_string())
        elif pa.types.is_binary_view(kind):
            array = pc.cast(array, pa.large_binary())
        else:
            return array


def _without_view(array: pa.Array) -> pa.Array:
    """Return lists of list views; pyarrow 26's own cast gives arrays that are invalid."""
    null = array.is_null().to_numpy(zero_copy_only=False)
    sizes = np.where(null, 0, array.sizes.to_numpy(zero_copy_only=False))
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), array.flatten(), mask=pa.array(null))


def nesting(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how deep lists are nested, and the type of what is in the innermost."""
    depth = 0
    kind = plain_type(kind)
    while is_list(kind):
        depth += 1
        kind = plain_type(kind.value_type)
    return depth, kind
