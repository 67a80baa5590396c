"""Sharing of equal constants, and of equal nodes that compute from constants alone.

Quantizers and optimisers make a constant of their own for each node, so that a weight which a recurrence reads at every
step would be written as often as it has steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from headrace.compression.onnx_model.source import array_of, graphs_of

if TYPE_CHECKING:
    import onnx

#: Nodes whose result follows from what they read, and that are worth joining when that is constant.
_PURE: Final = frozenset({
    "Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"
})  # fmt: skip

#: What two tensors must have in common to be one.
_Key: TypeAlias = tuple[object, ...]


@dataclass
class _Scope:
    """The constants in scope of a graph. known: by content. names: those of constants. renamed: those replaced."""

    known: dict[_Key, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)

    def inside(self, graph: onnx.GraphProto) -> _Scope:
        """Return what a graph within sees, whose own names come first."""
        own = _defined(graph)
        return _Scope(
            {key: name for key, name in self.known.items() if name not in own},
            self.names - own,
            {old: new for old, new in self.renamed.items() if old not in own},
        )


def share_constants(model: onnx.ModelProto) -> None:
    """Join equal constants of a graph and of the graphs within it; its nodes must be in order.

    Inputs with a default and outputs keep their names, since callers know them.
    """
    _hoist(model.graph)
    _share(model.graph, _Scope())


def _hoist(graph: onnx.GraphProto) -> None:
    """Copy constants that several of the graphs within hold, such as both branches of an If, to where all see them."""
    holders: dict[_Key, list[onnx.TensorProto]] = {}
    taken = _defined(graph)
    for inner in _graphs_within(graph):
        taken |= _defined(inner)
        free = {value.name for value in (*inner.input, *inner.output)}
        for tensor in inner.initializer:
            if tensor.name not in free:
                holders.setdefault(_tensor_key(tensor), []).append(tensor)
    have = {_tensor_key(tensor) for tensor in graph.initializer}
    for key, tensors in holders.items():
        if len(tensors) > 1 and key not in have:
            name = f"{tensors[0].name}_shared"
            while name in taken:
                name += "_"
            taken.add(name)
            hoisted = graph.initializer.add()
            hoisted.CopyFrom(tensors[0])
            hoisted.name = name


def _graphs_within(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for inner in graphs_of(node):
            yield inner
            yield from _graphs_within(inner)


def _share(graph: onnx.GraphProto, scope: _Scope) -> None:
    kept = {value.name for value in (*graph.input, *graph.output)} | set(_results_within(graph))
    # Its value is what a caller says, so that no other tensor is the same.
    free = {value.name for value in graph.input}
    gone = _share_tensors(graph, scope, kept, free)
    for node in graph.node:
        _rename(node, scope.renamed)
        for inner in graphs_of(node):
            _share(inner, scope.inside(inner))
        key = _node_key(node, scope.names)
        if key is None:
            continue
        scope.names.update(node.output)
        first = scope.known.setdefault(key, node.output[0])
        if first != node.output[0] and node.output[0] not in kept:
            scope.renamed[node.output[0]] = first
            gone.add(node.output[0])
    _remove(graph, gone)


def _share_tensors(graph: onnx.GraphProto, scope: _Scope, kept: set[str], free: set[str]) -> set[str]:
    """Find constants that repeat another; returns their names."""
    gone: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in free:
            continue
        scope.names.add(tensor.name)
        first = scope.known.setdefault(_tensor_key(tensor), tensor.name)
        if first != tensor.name and tensor.name not in kept:
            scope.renamed[tensor.name] = first
            gone.add(tensor.name)
    return gone


def _tensor_key(tensor: onnx.TensorProto) -> _Key:
    content = b"".join(tensor.string_data) if tensor.string_data else array_of(tensor).tobytes()
    lengths = tuple(len(text) for text in tensor.string_data)
    return "tensor", tensor.data_type, tuple(tensor.dims), lengths, hashlib.blake2b(content).digest()


def _node_key(node: onnx.NodeProto, constants: set[str]) -> _Key | None:
    """Return what two nodes that give the same have in common; None for a node that doesn't read constants alone."""
    if node.op_type not in _PURE or len(node.output) != 1 or not all(name in constants for name in node.input if name):
        return None
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    content = hashlib.blake2b(b"|".join(attributes)).digest()
    return node.domain, node.op_type, tuple(node.input), content


def _rename(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    if any(name in renamed for name in node.input):
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _remove(graph: onnx.GraphProto, gone: set[str]) -> None:
    if not gone:
        return
    tensors = [tensor for tensor in graph.initializer if tensor.name not in gone]
    nodes = [node for node in graph.node if not gone.intersection(node.output)]
    values = [value for value in graph.value_info if value.name not in gone]
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    graph.value_info.extend(values)


def _defined(graph: onnx.GraphProto) -> set[str]:
    named: Iterable[str] = (
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output),
    )
    return set(named)


def _results_within(graph: onnx.GraphProto) -> Iterable[str]:
    """Name the outputs of the graphs within, which might be tensors of this one."""
    for node in graph.node:
        for inner in graphs_of(node):
            yield from (value.name for value in inner.output)
            yield from _results_within(inner)
