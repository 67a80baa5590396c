"""Reads saved_model.pb without TensorFlow: its signatures, and whether one of them writes into variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

#: Field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto, node_def.proto, attr_value.proto.
_META_GRAPHS: Final = 2
_GRAPH, _SIGNATURES = 2, 5
_KEY, _VALUE = 1, 2
_OUTPUTS: Final = 2
_NODES, _LIBRARY = 1, 2
_FUNCTIONS: Final = 1
_FUNCTION_SIGNATURE, _FUNCTION_NODES = 1, 3
_NAME, _OPERATOR, _INPUTS, _ATTRIBUTES = 1, 2, 3, 5
_LIST, _FUNCTION = 1, 10
_LISTED_FUNCTIONS: Final = 9

_BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}


def signature_names(content: bytes) -> list[str]:
    """Return the names of the signatures, without those that only TensorFlow calls; none of a damaged file."""
    found = {_text(entry, _KEY) for graph in _fields(content, _META_GRAPHS) for entry in _fields(graph, _SIGNATURES)}
    return sorted(name for name in found if not name.startswith("__"))


def assigning_operator(content: bytes, signature: str) -> str:
    """Return an operator that a signature calls and that changes a variable; "" if there is none.

    Only what the signature's outputs need counts: every file holds functions that load weights into variables.
    """
    for meta in _fields(content, _META_GRAPHS):
        graphs = list(_fields(meta, _GRAPH))
        nodes = {_text(node, _NAME): node for graph in graphs for node in _fields(graph, _NODES)}
        functions = {
            _text(head, _NAME): function
            for graph in graphs
            for library in _fields(graph, _LIBRARY)
            for function in _fields(library, _FUNCTIONS)
            for head in _fields(function, _FUNCTION_SIGNATURE)
        }
        for node in _called(_outputs(meta, signature), nodes, functions):
            operator = _text(node, _OPERATOR)
            if operator.startswith("Assign"):
                return operator
    return ""


def _outputs(meta: bytes, signature: str) -> list[str]:
    """Return the nodes that a signature's outputs come from."""
    return [
        _text(tensor, _NAME).partition(":")[0]
        for entry in _fields(meta, _SIGNATURES)
        if _text(entry, _KEY) == signature
        for definition in _fields(entry, _VALUE)
        for output in _fields(definition, _OUTPUTS)
        for tensor in _fields(output, _VALUE)
    ]


def _called(names: list[str], nodes: dict[str, bytes], functions: dict[str, bytes]) -> Iterator[bytes]:
    """Return the nodes that these need, and all nodes of the functions that they call."""
    seen = set(names)
    waiting = [nodes[name] for name in names if name in nodes]
    called: set[str] = set()
    while waiting:
        node = waiting.pop()
        yield node
        for name in (reference.decode("utf-8", "replace") for reference in _fields(node, _INPUTS)):
            source = name.lstrip("^").partition(":")[0]
            # Within a function the names are of that function; all its nodes are taken anyhow.
            if source in nodes and source not in seen:
                seen.add(source)
                waiting.append(nodes[source])
        for name in set(_functions_of(node)) - called:
            called.add(name)
            waiting.extend(_fields(functions.get(name, b""), _FUNCTION_NODES))


def _functions_of(node: bytes) -> Iterator[str]:
    for attribute in _fields(node, _ATTRIBUTES):
        for value in _fields(attribute, _VALUE):
            for function in _fields(value, _FUNCTION):
                yield _text(function, _NAME)
            for listed in _fields(value, _LIST):
                for function in _fields(listed, _LISTED_FUNCTIONS):
                    yield _text(function, _NAME)


def _text(message: bytes, number: int) -> str:
    return next(_fields(message, number), b"").decode("utf-8", "replace")


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Return the values of one field of a protobuf message that are bytes; those before the damage in a damaged one."""
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind == _BYTES:
                size, at = _varint(message, at)
                if tag >> 3 == number:
                    yield message[at : at + size]
                at += size
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                _, at = _varint(message, at)
    except IndexError:
        return


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
