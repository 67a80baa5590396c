"""ZipMap, the last step of conversions from scikit-learn, LightGBM and XGBoost, which makes dicts of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def replace_zipmaps(graph: onnx.GraphProto) -> list[str] | None:
    """Let outputs that are dicts by class be the tables [rows, classes] that those are made of, under the same name.

    Returns the class names in the order of the table's columns; none if two outputs disagree on them. None as a whole
    if the graph has no such output, and stays as it was.
    """
    import onnx

    outputs = {value.name: value for value in graph.output}
    found: list[list[str]] = []
    for node in graph.node:
        if node.op_type != "ZipMap" or node.output[0] not in outputs:
            continue
        labels = _labels(node)
        found.append(labels)
        value = outputs[node.output[0]]
        table = onnx.helper.make_tensor_value_info(value.name, _element_of(value), [None, len(labels) or None])
        value.CopyFrom(table)
        node.CopyFrom(onnx.helper.make_node("Identity", list(node.input), list(node.output), name=node.name))
    if not found:
        return None
    return found[0] if all(labels == found[0] for labels in found) else []


def _labels(node: onnx.NodeProto) -> list[str]:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings" and attribute.strings:
            return [label.decode() for label in attribute.strings]
        if attribute.name == "classlabels_int64s" and attribute.ints:
            return [str(label) for label in attribute.ints]
    return []


def _element_of(value: onnx.ValueInfoProto) -> int:
    """Return the element type of the values in an output's dicts."""
    import onnx

    entry = value.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type
    return int(entry) or int(onnx.TensorProto.FLOAT)
