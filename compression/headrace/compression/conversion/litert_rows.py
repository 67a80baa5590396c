"""LiteRT files with a varying number of rows: litert-torch 0.10 freezes every size.

The network is converted with a number of rows that is prime and divides no other size in it. In the file, every size
that this prime divides is then one of rows, or of rows times something. Those become -1: in the shapes of tensors, in
what RESHAPE takes for a shape, and in what SLICE takes for a size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import CompressionError

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, SubGraphT

#: Numbers of rows to convert with, the first that fits; above the sizes of kernels and strides.
_PRIMES: Final = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)

#: Operators that may have a -1 among sizes, and which of their inputs holds them.
_SIZES: Final = {"RESHAPE": 1, "SLICE": 2}

#: The most dimensions of a LiteRT tensor.
_LONGEST_SHAPE: Final = 8

#: flatbuffers of this kind.
_IDENTIFIER: Final = b"TFL3"


def rows_to_convert(sizes: Iterable[int]) -> int:
    """Choose the number of rows to convert with. sizes: all others in the network."""
    others = [size for size in sizes if size > 0]
    fitting = (prime for prime in _PRIMES if all(size % prime for size in others))
    if (found := next(fitting, None)) is None:
        raise CompressionError("the network has too many different sizes to find one that only rows have")
    return found


def free_rows(content: bytes, rows: int) -> bytes:
    """Return a file that takes any number of rows, made from one that was converted with `rows` rows.

    Raises CompressionError naming the operator that holds on to the number.
    """
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    for graph in model.subgraphs:
        _free_operators(model, graph, names, rows)
        _free_tensors(model, graph, rows)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _free_operators(model: ModelT, graph: SubGraphT, names: dict[int, str], rows: int) -> None:
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for place, index in enumerate(operator.inputs):
            buffer = None if index < 0 else model.buffers[graph.tensors[index].buffer]
            if buffer is None or buffer.data is None:
                continue
            if _SIZES.get(name) == place:
                buffer.data = _freed(buffer.data, name, rows).view(np.uint8)
            elif _holds_rows(graph.tensors[index], buffer.data, rows):
                raise _frozen(name)


def _freed(data: Any, name: str, rows: int) -> NDArray[np.int32]:
    sizes = np.array(data, np.uint8).view(np.int32)
    of_rows = (sizes > 0) & (sizes % rows == 0)
    # RESHAPE works out one size; SLICE takes all that there is in each.
    if name == "RESHAPE" and of_rows.sum() + (sizes == -1).sum() > 1 and of_rows.any():
        raise _frozen(name)
    sizes[of_rows] = -1
    return sizes


def _holds_rows(tensor: Any, data: Any, rows: int) -> bool:
    """Whether a constant is a shape with rows in it, or has itself been spread over the rows."""
    from ai_edge_litert.schema_py_generated import TensorType

    shape = np.array([] if tensor.shape is None else tensor.shape)
    if ((shape > 0) & (shape % rows == 0)).any():
        return True
    if tensor.type != TensorType.INT32 or shape.ndim != 1 or len(shape) != 1 or shape[0] > _LONGEST_SHAPE:
        return False
    sizes = np.array(data, np.uint8).view(np.int32)
    return bool(((sizes > 0) & (sizes % rows == 0)).any())


def _free_tensors(model: ModelT, graph: SubGraphT, rows: int) -> None:
    for tensor in graph.tensors:
        if tensor.shape is None or model.buffers[tensor.buffer].data is not None:
            continue
        shape = np.array(tensor.shape, np.int32)
        of_rows = (shape > 0) & (shape % rows == 0)
        if of_rows.any():
            # A shape for one row, and a signature that says which of its sizes vary.
            tensor.shapeSignature = np.where(of_rows, -1, shape).astype(np.int32)
            tensor.shape = np.where(of_rows, shape // rows, shape).astype(np.int32)


def _frozen(operator: str) -> CompressionError:
    return CompressionError(
        f"this network can't take any number of rows in LiteRT: its operator {operator} needs them as a number; "
        "expand and repeat over the rows are such; serve it with onnxruntime or openvino"
    )
