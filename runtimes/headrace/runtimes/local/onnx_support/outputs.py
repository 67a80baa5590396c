"""Cuts an ONNX graph down to the outputs that a package keeps; ONNX Runtime would compute all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from headrace.contracts import ModelPackage
from headrace.runtimes.local.onnx_support.session import SessionFailed

if TYPE_CHECKING:
    import onnx


def model_of_outputs(package: ModelPackage) -> str | bytes:
    """Return the path of a package's model; or the model without its other outputs, if the package keeps some only.

    Raises SessionFailed when the model can't be read.
    """
    keep = package.manifest.store.keep
    if not keep or set(keep) == {spec.name for spec in package.manifest.outputs}:
        return str(package.file)
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as exc:
        raise SessionFailed(exc) from exc
    try:
        model = onnx.ModelProto.FromString(package.file.read_bytes())
    except (DecodeError, OSError) as exc:
        raise SessionFailed(exc) from exc
    _cut(model.graph, keep)
    return bytes(model.SerializeToString())


def _cut(graph: onnx.GraphProto, keep: Collection[str]) -> None:
    outputs = [value for value in graph.output if value.name in keep]
    needed = set(keep)
    nodes = []
    # Every node comes after those whose outputs it takes.
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(_names_read(node))
            nodes.append(node)
    nodes.reverse()
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in (("output", outputs), ("node", nodes), ("initializer", weights)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Return all names that a node or a graph within it takes; those of the inner graph's own values do no harm."""
    yield from node.input
    for attribute in node.attribute:
        inner = [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            yield from (value.name for value in graph.output)
            for each in graph.node:
                yield from _names_read(each)
