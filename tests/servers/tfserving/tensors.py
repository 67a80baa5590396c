"""TensorProto and the REST API's JSON, to and from arrays, as TensorFlow Serving writes and reads them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto

#: Fields of TensorProto that are not the datatype's own name with `_val`.
_FIELDS = {"int8": "int_val", "uint8": "int_val", "int16": "int_val", "uint16": "int_val", "int32": "int_val"}
_FIELDS |= {"float32": "float_val", "float64": "double_val", "bfloat16": "half_val", "float16": "half_val"}

Tensors = dict[str, NDArray[Any]]


def to_proto(array: NDArray[Any], as_content: bool) -> TensorProto:
    """Return a tensor in the field of its datatype, or as bytes where its datatype has such a form."""
    kind = tf.as_dtype(array.dtype if array.dtype.kind != "O" else tf.string)
    proto = TensorProto(dtype=kind.as_datatype_enum, tensor_shape=tf.TensorShape(array.shape).as_proto())
    if kind == tf.string:
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = array.tobytes()
    elif kind in (tf.float16, tf.bfloat16):
        proto.half_val.extend(array.ravel().view(np.uint16).tolist())
    else:
        getattr(proto, _FIELDS.get(kind.name, f"{kind.name}_val")).extend(array.ravel().tolist())
    return proto


def from_proto(proto: TensorProto) -> NDArray[Any]:
    """Return the array of a tensor in either form."""
    array: NDArray[Any] = tf.make_ndarray(proto)
    return array


def from_json(body: Mapping[str, Any], kinds: Mapping[str, tf.DType]) -> Tensors:
    """Return inputs out of the row form (`instances`) or the column form (`inputs`). Raises ValueError."""
    if ("instances" in body) == ("inputs" in body):
        raise ValueError("JSON Value: {} must have exactly one of 'instances' or 'inputs'")
    values = body.get("instances", body.get("inputs"))
    by_name = values[0] if "instances" in body and isinstance(values, list) and values else values
    if isinstance(by_name, dict) and set(by_name) != {"b64"}:
        columns = {name: [row[name] for row in values] for name in by_name} if "instances" in body else values
    elif len(kinds) == 1:
        columns = {next(iter(kinds)): values}
    else:
        raise ValueError(f"instances is a plain list, but expecting list of objects as multiple input tensors: {kinds}")
    return {name: _array(column, kinds[name]) for name, column in columns.items() if name in kinds} | {
        name: np.empty(0) for name in columns if name not in kinds
    }


def _array(values: Any, kind: tf.DType) -> NDArray[Any]:
    if kind == tf.string:
        return np.array(_bytes(values), dtype=object)
    return np.array(values, dtype=kind.as_numpy_dtype)


def _bytes(values: Any) -> Any:
    if isinstance(values, list):
        return [_bytes(value) for value in values]
    return base64.b64decode(values["b64"]) if isinstance(values, dict) else values.encode()


def to_json(outputs: Tensors, rows: bool) -> dict[str, Any]:
    """Return outputs in the row form or in the column form; one output loses its name."""
    columns = {name: _values(array, name) for name, array in outputs.items()}
    if rows:
        count = len(next(iter(columns.values())))
        by_row = [{name: column[row] for name, column in columns.items()} for row in range(count)]
        return {"predictions": next(iter(columns.values())) if len(columns) == 1 else by_row}
    return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}


def _values(array: NDArray[Any], name: str) -> Any:
    """Return nested lists. Strings of an output whose name ends in `_bytes` are base64, as the REST API has it."""
    if array.dtype.kind != "O":
        return _plain(array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array)
    encode = (lambda value: {"b64": base64.b64encode(value).decode()}) if name.endswith("_bytes") else bytes.decode
    return np.array([encode(value) for value in array.ravel()], dtype=object).reshape(array.shape).tolist()


def _plain(array: NDArray[Any]) -> Any:
    """Return numbers as short as the server writes them."""
    if array.dtype == np.float32:
        short = [float(str(value)) if math.isfinite(value) else float(value) for value in array.ravel()]
        return np.array(short, dtype=np.float64).reshape(array.shape).tolist()
    return array.tolist()
