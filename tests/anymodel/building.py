"""A graph under construction, and the tensors in it with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.anymodel.callers import Input

TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "object": TensorProto.STRING,
}

FLOATS = {"float32", "float64", "float16"}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    dims: sizes, or names of those that a request chooses; "?" is one that data decide. row: the axis of the rows; None
    when there is none. mixed: rows have met each other on the way. exact: no rounding on the way, so that comparing and
    sorting give the same in every batch.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    row: int | None
    mixed: bool = False
    exact: bool = True

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def features(self) -> list[int]:
        """The axes that hold no rows."""
        return [axis for axis in range(len(self.dims)) if axis != self.row]

    def now(self, name: str, **changes: Any) -> Value:
        return replace(self, name=name, **changes)


@dataclass
class Builder:
    """Nodes, constants and inputs so far. `random` decides the structure, `weights` the numbers in it.

    finite: callers send no NaN or infinity, because ONNX Runtime itself answers those by their place in memory.
    """

    random: Random
    rows: int | str = "n"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    finite: bool = False

    def __post_init__(self) -> None:
        self.weights = np.random.default_rng(self.random.getrandbits(32))

    def name(self) -> str:
        return f"t{len(self.nodes)}_{len(self.constants)}"

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names."""
        names = [f"{self.name()}_{i}" for i in range(outputs)]
        domain = attributes.pop("domain", "")
        # Whether ONNX Runtime 1.32 heeds a NaN in these depends on its place, even on its address.
        self.finite |= kind in {"ReduceMax", "ReduceMin"}
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def const(self, value: Any, dtype: str = "int64") -> str:
        name = f"c_{self.name()}"
        array = np.asarray(value, dtype)
        if dtype == "object":
            tensor = helper.make_tensor(name, TensorProto.STRING, array.shape, [x.encode() for x in array.reshape(-1)])
        else:
            tensor = numpy_helper.from_array(array, name)
        self.constants.append(tensor)
        return name

    def noise(self, shape: tuple[int, ...], dtype: str = "float32", scale: float = 1.0) -> str:
        return self.const(self.weights.normal(size=shape) * scale, dtype)

    def size(self, value: str, axis: int) -> str:
        """Return the name of a [1] tensor with the size of one axis."""
        size: str = self.node("Shape", value, start=axis, end=axis + 1)
        return size

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def input(self, name: str, dtype: str, dims: tuple[int | str, ...], **facts: Any) -> Value:
        self.inputs.append(Input(name, dtype, dims, **facts))
        row = None if facts.get("parameter") else dims.index(self.rows)
        return Value(name, dtype, dims, row)

    def cast(self, value: str, dtype: str) -> str:
        output: str = self.node("Cast", value, to=TYPES[dtype])
        return output
