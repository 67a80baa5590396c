"""Facts about a model's graph for its trial: operators that mix rows, and constants that data are compared with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

#: Operator → what it does to rows, those first that explain most. Only hints: each has harmless uses too.
_CAUSES: Final = {
    "DynamicQuantizeLinear": "takes one scale for all rows of a run",
    "DynamicQuantizeMatMul": "takes one scale for all rows of a run",
    "DynamicQuantizeLSTM": "takes one scale for all rows of a run",
    "RandomNormal": "draws anew in each run",
    "RandomNormalLike": "draws anew in each run",
    "RandomUniform": "draws anew in each run",
    "RandomUniformLike": "draws anew in each run",
    "Multinomial": "draws anew in each run",
    "Bernoulli": "draws anew in each run",
    "BatchNormalization": "takes mean and variance of all rows when it was exported in training mode",
    "NonMaxSuppression": "lists the boxes of all rows",
    "NonZero": "lists what it finds in all rows",
    "Compress": "keeps as many entries as the data say",
    "Unique": "counts the values of all rows together",
    "StringSplit": "gives all rows the width of the longest",
    "CumSum": "may add up along the rows",
    "TopK": "may choose among the rows",
}

#: Operators whose constants are worth trying as data.
_COMPARISONS: Final = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where", "Clip", "Max", "Min"}
)
_KEYS: Final = frozenset(
    {"keys_strings", "classes_strings", "cats_strings", "pool_strings", "string_vocabulary", "stopwords"}
)

#: Operator → those of its inputs that say how it works.
_PARAMETERS: Final = {
    "Reshape": (1,),
    "Expand": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Slice": (1, 2, 3, 4),
    "Resize": (1, 2, 3),
    "Tile": (1,),
    "Pad": (1, 3),
    "ConstantOfShape": (0,),
    "TopK": (1,),
    "Split": (1,),
    "CenterCropPad": (1,),
    "AffineGrid": (1,),
    "OneHot": (1,),
    "Range": (0, 1, 2),
    "CumSum": (1,),
    "Upsample": (1,),
    "NonMaxSuppression": (2, 3, 4),
}

#: Numbers of a constant that may be a threshold and not weights, and how many of all are tried.
SMALL: Final = 8
_MOST_VALUES: Final = 24

#: Those that quantize whatever runs together.
_DYNAMIC: Final = "DynamicQuantize"


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a graph.

    operators: those that may mix rows; a batch norm counts in training mode only. numbers, words: constants that data
    may be compared with, such as a threshold or the number of a token. parameters: inputs that say how an operator
    works, such as a shape or an axis: they hold no rows.
    """

    operators: frozenset[str] = frozenset()
    numbers: tuple[float, ...] = ()
    words: tuple[bytes, ...] = ()
    parameters: frozenset[str] = frozenset()


def graph_of(model: onnx.ModelProto) -> Graph:
    """Return the facts of an ONNX file."""
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    tensors |= {node.output[0]: each.t for node in nodes if node.op_type == "Constant" for each in node.attribute}
    # Those of comparisons first; others may get there by way of a cast or a reshape.
    names = [name for node in nodes if node.op_type in _COMPARISONS for name in node.input]
    values = _values_of([tensors[name] for name in dict.fromkeys([*names, *tensors]) if name in tensors])
    return Graph(
        operators=frozenset(node.op_type for node in nodes if node.op_type in _CAUSES and not _is_harmless(node)),
        numbers=numbers_of(np.array(value) for value in values if isinstance(value, float)),
        parameters=frozenset(
            node.input[place] for node in nodes for place in _parameter_places(node.op_type) if place < len(node.input)
        ),
        words=tuple(value for value in [*values, *_keys(nodes)] if isinstance(value, bytes))[:_MOST_VALUES],
    )


def numbers_of(constants: Iterable[NDArray[Any]]) -> tuple[float, ...]:
    """Return the numbers in small constants, each once and not too many: those of the first constants."""
    numbers: dict[float, None] = {}
    for constant in constants:
        if constant.size <= SMALL and constant.dtype.kind in "iuf":
            numbers |= dict.fromkeys(float(value) for value in constant.reshape(-1).tolist() if math.isfinite(value))
        if len(numbers) >= _MOST_VALUES:
            break
    return tuple(numbers)[:_MOST_VALUES]


def operators_of(names: Iterable[str]) -> frozenset[str]:
    """Return those operators that may mix rows; a batch norm of another format than ONNX never does."""
    return frozenset(names) & _CAUSES.keys() - {"BatchNormalization"}


def likely_cause(operators: Collection[str]) -> str:
    """Describe the likely cause of rows that depend on each other; "" if no operator is known for it."""
    return next((f"{operator} {deed}" for operator, deed in _CAUSES.items() if operator in operators), "")


def quantizes_together(operators: Collection[str]) -> bool:
    """Return whether a scale is computed of all that runs together; labels may differ then though none did."""
    return any(operator.startswith(_DYNAMIC) for operator in operators)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def _values_of(tensors: Sequence[onnx.TensorProto]) -> list[float | bytes]:
    """Return the values of small constants, each once."""
    from onnx import TensorProto, numpy_helper

    values: list[float | bytes] = []
    for tensor in tensors:
        if math.prod(tensor.dims) > SMALL or tensor.data_location == TensorProto.EXTERNAL or not tensor.data_type:
            continue
        for value in numpy_helper.to_array(tensor).reshape(-1).tolist():
            if isinstance(value, str | bytes):
                values.append(value.encode() if isinstance(value, str) else value)
            elif math.isfinite(value):
                values.append(float(value))
    return list(dict.fromkeys(values))


def _keys(nodes: Sequence[onnx.NodeProto]) -> list[bytes]:
    """Return some of the words that graphs look up."""
    found = [word for node in nodes for each in node.attribute if each.name in _KEYS for word in each.strings]
    return list(dict.fromkeys(found))


def _parameter_places(operator: str) -> tuple[int, ...]:
    return (1,) if operator.startswith("Reduce") else _PARAMETERS.get(operator, ())


def _is_harmless(node: onnx.NodeProto) -> bool:
    if node.op_type != "BatchNormalization":
        return False
    return not any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
