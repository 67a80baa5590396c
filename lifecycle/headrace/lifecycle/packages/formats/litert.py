"""TensorFlow Lite files (`.tflite`), which LiteRT runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import PackageError, SignatureMismatch
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.libraries import library
from headrace.lifecycle.packages.formats.origin import FORGETS, origin_of
from headrace.lifecycle.packages.graph_facts import SMALL, Graph, numbers_of

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

MODEL_FILE: Final = "model.tflite"

#: Operators whose constants are worth trying as data before others.
_COMPARISONS: Final = frozenset({
    "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "SELECT", "SELECT_V2", "MAXIMUM", "MINIMUM",
})  # fmt: skip


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:  # noqa: ARG001
    """Copy a `.tflite` file into a package's folder. Raises PackageError. sample: not needed."""
    library("ai_edge_litert", "litert")
    from ai_edge_litert.interpreter import Interpreter

    from headrace.runtimes.local.litert_file import named_details, state_of

    shutil.copyfile(source, folder / MODEL_FILE)
    try:
        interpreter = Interpreter(str(folder / MODEL_FILE))
        inputs, outputs = (named_details(source, kind, interpreter) for kind in ("input", "output"))
    except (RuntimeError, ValueError) as exc:
        raise PackageError(
            f"LiteRT can't load {source}: {first_line(exc)}; copy it again, or convert the model with built-in "
            "operators only"
        ) from exc
    declared = tuple(_tensor(source, "input", name, detail) for name, detail in inputs)
    # Converters write the sizes of their example into outputs whose sizes follow from the input's.
    follow = any(None in (tensor.dims or ()) for tensor in declared)
    return DeclaredModel(
        runtime="litert",
        file=MODEL_FILE,
        inputs=declared,
        outputs=tuple(_tensor(source, "output", name, detail, follows=follow) for name, detail in outputs),
        facts={**origin_of(source), **(FORGETS if state_of(interpreter) != "none" else {})},
        graph=_graph(interpreter),
    )


def _graph(interpreter: Interpreter) -> Graph:
    operators = interpreter._get_ops_details()
    computed = {int(index) for operator in operators for index in operator["outputs"]}
    computed |= {detail["index"] for detail in interpreter.get_input_details()}
    small = {
        detail["index"]: detail
        for detail in interpreter.get_tensor_details()
        if detail["index"] not in computed and math.prod(detail["shape"]) <= SMALL
    }
    compared = [index for operator in operators if operator["op_name"] in _COMPARISONS for index in operator["inputs"]]
    order = dict.fromkeys([*(int(index) for index in compared), *small])
    return Graph(numbers=numbers_of(_values_of(interpreter, small[index]) for index in order if index in small))


def _values_of(interpreter: Interpreter, detail: dict[str, Any]) -> NDArray[Any]:
    """Return the values of a constant; an empty array for a tensor that is none after all, such as a variable."""
    try:
        values: NDArray[Any] = np.asarray(interpreter.get_tensor(detail["index"]))
    except ValueError:
        return np.empty(0)
    scale, zero = detail["quantization"]
    return (values.astype(np.float64) - zero) * scale if scale and values.dtype.kind in "iu" else values


def _tensor(source: Path, kind: str, name: str, detail: dict[str, Any], *, follows: bool = False) -> DeclaredTensor:
    sizes = [int(size) for size in detail["shape_signature"]]
    if follows and -1 not in sizes:
        sizes = [-1] * len(sizes)
    try:
        datatype = datatype_of(np.dtype(detail["dtype"]))
    except SignatureMismatch as exc:
        raise PackageError(f"{source} has the {kind} {name!r}: {exc.message}") from None
    # An output whose shape the converter didn't know has none.
    known = bool(sizes) or kind == "input"
    return DeclaredTensor(
        name=name,
        datatype=datatype,
        dims=tuple(None if size < 0 else size for size in sizes) if known else None,
    )
