"""OpenVINO's own files: `.xml` with the weights in a `.bin` beside it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.contracts import PackageError, SignatureMismatch
from headrace.contracts.telemetry import untracked
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.libraries import library
from headrace.lifecycle.packages.formats.origin import FORGETS, origin_of
from headrace.lifecycle.packages.graph_facts import SMALL, Graph, numbers_of, operators_of
from headrace.runtimes.local.failures import openvino_cause

if TYPE_CHECKING:
    import openvino as ov

MODEL_FILE: Final = "model.xml"
WEIGHTS_FILE: Final = "model.bin"

#: Operators whose constants are worth trying as data before others.
_COMPARISONS: Final = frozenset({
    "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Select", "Maximum", "Minimum",
})  # fmt: skip


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:  # noqa: ARG001
    """Copy an OpenVINO model with its weights into a package's folder. Raises PackageError. sample: not needed."""
    ov = openvino_library()
    weights = source.with_suffix(".bin")
    if not weights.is_file():
        raise PackageError(f"the weights {weights} of {source} are missing; copy both files")
    try:
        model = ov.Core().read_model(str(source), str(weights))
    except RuntimeError as exc:  # The one class that OpenVINO raises.
        raise PackageError(
            f"OpenVINO can't load {source}: {openvino_cause(exc).rstrip('.')}; copy it again with its .bin file"
        ) from exc
    if _name_ports(model):
        ov.save_model(model, folder / MODEL_FILE, compress_to_fp16=False)
    else:
        shutil.copyfile(source, folder / MODEL_FILE)
        shutil.copyfile(weights, folder / WEIGHTS_FILE)
    return declared_model(model, source)


def openvino_library() -> Any:
    """Import OpenVINO. Raises PackageError when it is not installed."""
    with untracked():
        return library("openvino", "openvino")


def declared_model(model: ov.Model, source: Path) -> DeclaredModel:
    """Declare a model whose files lie in its package's folder; all its inputs and outputs have names."""
    return DeclaredModel(
        runtime="openvino",
        file=MODEL_FILE,
        files=(WEIGHTS_FILE,),
        inputs=tuple(_tensor(source, "input", port) for port in model.inputs),
        outputs=tuple(_tensor(source, "output", port) for port in model.outputs),
        facts={**origin_of(source), **(FORGETS if model.get_sinks() else {})},
        graph=_graph(model),
    )


def _graph(model: ov.Model) -> Graph:
    nodes = model.get_ordered_ops()
    comparing = [node for node in nodes if node.get_type_name() in _COMPARISONS]
    compared = [port.get_source_output().get_node() for node in comparing for port in node.inputs()]
    limits = [node.get_attributes() for node in nodes if node.get_type_name() == "Clamp"]
    return Graph(
        operators=operators_of(node.get_type_name() for node in nodes),
        numbers=numbers_of(
            [
                *(node.get_data() for node in compared if _is_small_constant(node)),
                *(np.array([each["min"], each["max"]], np.float64) for each in limits),
                *(node.get_data() for node in nodes if _is_small_constant(node)),
            ]
        ),
    )


def _is_small_constant(node: ov.Node) -> bool:
    return bool(node.get_type_name() == "Constant") and math.prod(node.output(0).get_shape()) <= SMALL


def _name_ports(model: ov.Model) -> bool:
    """Name inputs and outputs that have no name; return whether there were any."""
    unnamed = [port for port in (*model.inputs, *model.outputs) if not port.get_names()]
    for port in unnamed:
        port.get_tensor().set_names({port.get_node().get_friendly_name()})
    return bool(unnamed)


def _tensor(source: Path, kind: str, port: Any) -> DeclaredTensor:
    shape = port.get_partial_shape()
    known = shape.rank.is_static
    name = _name(port)
    datatype = _datatype(port.get_element_type())
    if datatype is None:
        raise PackageError(
            f"{source} has the {kind} {name!r} of {port.get_element_type().get_type_name()}, which no request can "
            "hold; convert the model with other datatypes at its edge (openvino.preprocess.PrePostProcessor)"
        )
    dims = tuple(size.get_length() if size.is_static else None for size in shape) if known else None
    return DeclaredTensor(name=name, datatype=datatype, dims=dims)


def _datatype(element: Any) -> str | None:
    """Return the datatype of an element type; None when there is none."""
    try:
        dtype = element.to_dtype()
        # OpenVINO names another type of as many bits, or more, for what numpy doesn't have: BF16 is FP16 to it.
        return datatype_of(dtype) if type(element)(dtype) == element else None
    except (RuntimeError, SignatureMismatch):
        return None


def _name(port: Any) -> str:
    """Return that of a port's names by which people know it: the operator's own, else the shortest."""
    names = port.get_names()
    own: str = port.get_node().get_friendly_name()
    return own if own in names else str(min(names, key=lambda name: (len(name), name)))
