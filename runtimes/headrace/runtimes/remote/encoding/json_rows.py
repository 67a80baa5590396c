"""Batches as JSON in the two forms of TensorFlow Serving's REST interface, which TorchServe and KServe v1 share.

The column form is an object of whole tensors by name. The row form is a list with an entry for each row: an object of
values by name, or the value itself where there is a single tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.encoding.json_values import JsonElement, as_base64, read_values, write_values


def write_columns(inputs: Tensors) -> bytes:
    """Return a batch in the column form."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + write_values(array) for name, array in inputs.items()) + b"}"


def write_rows(inputs: Tensors, element: Callable[[bytes | str], JsonElement] = as_base64) -> list[bytes]:
    """Return each row of a batch as the row form has it. element: how those of BYTES are written."""
    columns = [[write_values(row, element) for row in _rows_of(array)] for array in inputs.values()]
    if len(columns) == 1:
        return columns[0]
    names = [orjson.dumps(name) for name in inputs]
    return [
        b"{" + b",".join(name + b":" + value for name, value in zip(names, values, strict=True)) + b"}"
        for values in zip(*columns, strict=True)
    ]


def _rows_of(array: Any) -> list[Any]:
    # Of a tensor with one dimension, iteration would yield scalars.
    return [array[index, ...] for index in range(array.shape[0])]


def read_columns(document: object, specs: Sequence[TensorSpec]) -> Tensors:
    """Return the outputs of an answer in the column form, a single one without its name. Raises BadAnswer."""
    if len(specs) == 1 and not (isinstance(document, dict) and specs[0].name in document):
        return {specs[0].name: read_values(document, specs[0].datatype, specs[0].name)}
    if not isinstance(document, dict):
        raise BadAnswer(f"the server's answer holds no outputs by name, but {quoted(document)}")
    return {spec.name: read_values(document[spec.name], spec.datatype, spec.name) for spec in _present(document, specs)}


def read_rows(document: object, specs: Sequence[TensorSpec]) -> Tensors:
    """Return the outputs of an answer in the row form. Raises BadAnswer."""
    if not isinstance(document, list):
        raise BadAnswer(f"the server's answer holds no list of rows, but {quoted(document)}")
    if len(specs) == 1 and not (document and isinstance(document[0], dict) and specs[0].name in document[0]):
        return {specs[0].name: read_values(document, specs[0].datatype, specs[0].name)}
    for row in document:
        if not isinstance(row, dict):
            raise BadAnswer(f"a row of the server's answer holds no outputs by name, but {quoted(row)}")
    found = {}
    for spec in _present(document[0] if document else {}, specs):
        missing = next((at for at, row in enumerate(document) if spec.name not in row), None)
        if missing is not None:
            raise BadAnswer(f"row {missing} of the server's answer has no output {quoted(spec.name)}")
        found[spec.name] = read_values([row[spec.name] for row in document], spec.datatype, spec.name)
    return found


def _present(document: dict[str, Any], specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    for spec in specs:
        if spec.name not in document:
            names = quoted(", ".join(map(str, document)))
            raise BadAnswer(f"the server's answer has no output {quoted(spec.name)}; it has {names}")
    return list(specs)


def stacked(rows: Sequence[Tensors]) -> Tensors:
    """Return the answers to single rows as one batch. Raises BadAnswer where their shapes differ."""
    try:
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    except (ValueError, KeyError) as exc:
        raise BadAnswer(f"the server's answers to single rows don't fit together: {exc}") from None
