"""Messages about failures of libraries: which node of the model they failed at, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.compression.onnx_model.excluded import advice
from headrace.compression.onnx_model.source import array_of, weights_of
from headrace.contracts.formatting import first_line

if TYPE_CHECKING:
    import onnx

#: Where ONNX Runtime names a node or tensor in a message.
_QUOTED: Final = re.compile(r"[Nn]ame:? ?'([^']+)'|Node ?\(([^)]+)\)|`([^`]+)`|'([^']+)'")

#: How variables of ONNX Runtime's quantizers end that hold the name of a node or a tensor, or either itself.
_TELLING: Final = ("_name", "_info", "_tp", "weight")


def versioned(library: str) -> str:
    """Name a library with its version."""
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return library


def failure(library: str, doing: str, exc: Exception, model: onnx.ModelProto) -> str:
    """Return one line that a library failed, at which node, why, and a remedy.

    doing: its task, such as "quantize this model per channel".
    """
    return node_failure(library, doing, failed_node(exc, model), f"{type(exc).__name__}: {first_line(exc)}", model)


def node_failure(library: str, doing: str, node: onnx.NodeProto | None, cause: str, model: onnx.ModelProto) -> str:
    """Return the same for a node that is known, or for none."""
    if node is None:
        return (
            f"{versioned(library)} can't {doing}, which is no fault of the model's: {cause}; try another recipe, such "
            f"as int8-weights, or another version of {library}"
        )
    odd = _not_finite(node, model)
    fault = f"since {odd!r} of the model holds NaN or infinity" if odd else "which is no fault of the model's"
    return (
        f"{versioned(library)} can't {doing}, {fault}: it fails at {node.op_type} {node.name!r} ({cause}); leave it "
        f"out with {advice([node.name])}, or try another recipe, such as int8-weights"
    )


def _not_finite(node: onnx.NodeProto, model: onnx.ModelProto) -> str:
    """Name a constant that a node reads and that holds NaN or infinity; "" if there is none."""
    weights = weights_of(model.graph)
    for name in node.input:
        array = array_of(weights[name]) if name in weights else None
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            return str(name)
    return ""


def refusal(library: str, doing: str, exc: Exception, model: onnx.ModelProto, remedy: str) -> str:
    """Return one line that a library can't process a model, at which node if its message names one, and a remedy."""
    return f"{versioned(library)} can't {doing}{named_in(str(exc), model)}: {first_line(exc)}; {remedy}"


def failed_node(exc: BaseException, model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Find the node that a library was at when it raised: from what its functions held, or the words of its message."""
    nodes: dict[str, onnx.NodeProto] = {node.name: node for node in model.graph.node}
    readers: dict[str, onnx.NodeProto] = {
        name: node for node in reversed(model.graph.node) for name in (*node.output, *node.input) if name
    }
    for found in (*_held(exc.__traceback__), *_words(str(exc))):
        # The quantizers call what they make of a node, or of a tensor, by its name and a suffix.
        for name in (found, found.removesuffix("_quant"), found.removesuffix("_quantized")):
            if node := nodes.get(name) or readers.get(name):
                return node
    return None


def named_in(text: str, model: onnx.ModelProto) -> str:
    """Return " at OPERATOR 'NAME'" if a message names a node or tensor of the model, else nothing."""
    node = failed_node(Exception(text), model)
    return f" at {node.op_type} {node.name!r}" if node is not None else ""


def _words(text: str) -> Iterator[str]:
    for found in _QUOTED.finditer(text):
        yield next(group for group in found.groups() if group)


def _held(traceback: TracebackType | None) -> Iterator[str]:
    """Name the nodes and tensors that the functions of a traceback held, the innermost first."""
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    for frame in reversed(frames):
        # Only of the library: our own functions hold what they gave it, not what it was at.
        if "headrace" not in frame.f_code.co_filename:
            held = frame.f_locals
            yield from _names([held.get("node"), getattr(held.get("self"), "node", None)])
            yield from _names(
                [value for key, value in held.items() if key.endswith(("_name", "_info", "_tp", "weight"))]
            )


def _names(values: list[Any]) -> Iterator[str]:
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            name = part if isinstance(part, str) else getattr(part, "name", None)
            if isinstance(name, str) and name:
                yield name
