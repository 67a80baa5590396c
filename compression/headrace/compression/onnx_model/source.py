"""The ONNX graph of a package: opened for a step, unless no step can change it; and look-ups in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from headrace.compression.data.row_layout import check_compressible
from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.formatting import first_line

if TYPE_CHECKING:
    import onnx

#: The extra that brings onnx and ONNX Runtime's tools.
EXTRA: Final = "quantize"

#: Operators are of these domains; any other comes from a library that ONNX Runtime has to load first.
_KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

#: QuantizeLinear knows an axis, and so scales per channel, from this opset on.
OLDEST_OPSET: Final = 13

#: protobuf, which ONNX files are, can't write more into one file.
_MAX_FILE_BYTES: Final = 2**31 - 1

#: Signs of a model that is quantized already.
_QUANTIZED: Final = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantize",
    "QLinear",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
    "QGemm",
    "QAttention",
    "GatherBlockQuantized",
)


def read_model(package: ModelPackage, what: str) -> onnx.ModelProto:
    """Read a package's ONNX file for the step `what`.

    The nodes have names of their own, the opset is at least 13, functions are written out.
    Raises NotApplicable when it is no ONNX package, has operators that no step knows, frozen rows, or more than
    2 GiB; PackageError when the file is damaged; CompressionError when its opset can't be raised.
    """
    if package.manifest.runtime != "onnxruntime":
        raise NotApplicable(
            f"{what} starts from an ONNX package, but {package.name} {package.version} is of the runtime "
            f"{package.manifest.runtime!r}; start from the ONNX version it was made of"
        )
    check_compressible(package)
    if package.size_bytes > _MAX_FILE_BYTES:
        raise NotApplicable(f"{package.file} is larger than 2 GiB, which one ONNX file can't hold; prune it first")
    package.verify()
    model = _load(package.file, what)
    _refuse_foreign_operators(model, package.file, what)
    _refuse_frozen_rows(model, package)
    _set_constants(model, package)
    model = _raise_opset(_write_out_functions(model), package.file)
    name_nodes(model.graph)
    return model


def refuse_quantized(model: onnx.ModelProto, what: str) -> None:
    """Raise NotApplicable when a model is quantized already."""
    found = sorted({node.op_type for node in nodes_of(model.graph) if node.op_type.startswith(_QUANTIZED)})
    if found:
        raise NotApplicable(f"the model is quantized already ({', '.join(found)}); {what} starts from a float version")


def keep_layer_norms_apart(model: onnx.ModelProto) -> int:
    """Write the residual additions before layer normalisations as Sum, which is the same; gives how many.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization when it loads a model. On CPUs that
    kernel takes five times as long as the two (1.32: 3.7 ms against 0.7 ms for 2,048 tokens of 384), and it knows Sum
    not. In MiniLM with int8 weights it is a quarter of all time.
    """
    makers = producers(model.graph)
    found = 0
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and (adds := makers.get(node.input[0])) and adds.op_type == "Add":
            adds.op_type = "Sum"
            found += 1
    return found


def weights_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the constant tensors of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor, by themselves or in a graph within them."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in _reads(node):
            found.setdefault(name, []).append(node)
    return found


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return the values of a constant tensor."""
    from onnx import numpy_helper

    array: NDArray[Any] = numpy_helper.to_array(tensor)
    return array


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """Read a number among a node's attributes."""
    from onnx import helper

    for found in node.attribute:
        if found.name == name:
            return float(helper.get_attribute_value(found))
    return default


def weighted_nodes(graph: onnx.GraphProto, operators: tuple[str, ...]) -> list[onnx.NodeProto]:
    """Return the nodes of these operators whose second input is a constant float32 weight, in graph order."""
    weights = weights_of(graph)
    return [
        node
        for node in graph.node
        if node.op_type in operators
        and len(node.input) > 1
        and (weight := weights.get(node.input[1])) is not None
        and weight.data_type == weight.FLOAT
    ]


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove constant tensors that no node reads, nor any graph within it."""
    used = {name for node in nodes_of(graph) for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Walk through the nodes of a graph and of the graphs within it (If, Loop, Scan)."""
    for node in graph.node:
        yield node
        for inner in graphs_of(node):
            yield from nodes_of(inner)


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs within a node, such as the branches of an If."""
    return [inner for found in node.attribute for inner in (*([found.g] if found.HasField("g") else []), *found.graphs)]


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node after those whose tensors it reads, as ONNX asks; otherwise the order stays."""
    makers = producers(graph)
    sorted_nodes: list[onnx.NodeProto] = []
    placed: set[str] = set()
    # Each node with the inputs it still waits for; a stack, since graphs are deeper than Python's recursion.
    for first in graph.node:
        stack = [first]
        while stack:
            node = stack[-1]
            waits = [maker for name in _reads(node) if (maker := makers.get(name)) and maker.name not in placed]
            if waits and node.name not in placed:
                stack += waits[::-1]
                continue
            stack.pop()
            if node.name not in placed:
                placed.add(node.name)
                sorted_nodes.append(node)
    ordered = [copy.deepcopy(node) for node in sorted_nodes]
    del graph.node[:]
    graph.node.extend(ordered)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Name what a node reads, also within its own graphs."""
    yield from node.input
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from _reads(inner)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node, the same each time: steps leave nodes out by name."""
    taken: set[str] = set()
    for position, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)


def need(module: str, what: str) -> None:
    """Raise MissingLibrary when a module of the extra isn't installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingLibrary(what, EXTRA)


def _load(path: Path, what: str) -> onnx.ModelProto:
    for module in ("onnx", "onnxruntime"):
        need(module, what)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except DecodeError as exc:
        raise PackageError(f"{path} is not an ONNX file, or a damaged one; export the model again") from exc


def _refuse_foreign_operators(model: onnx.ModelProto, path: Path, what: str) -> None:
    own = {function.domain for function in model.functions}
    foreign = {
        f"{node.domain}:{node.op_type}" for node in nodes_of(model.graph) if node.domain not in _KNOWN_DOMAINS | own
    }
    if any(name.startswith("com.microsoft.") for name in foreign):
        raise NotApplicable(
            f"{path} was optimised for one kind of processor ({', '.join(sorted(foreign))}); {what} starts from the "
            "version before that"
        )
    if foreign:
        raise NotApplicable(f"{path} has custom operators that {what} doesn't know: {', '.join(sorted(foreign))}")


def _refuse_frozen_rows(model: onnx.ModelProto, package: ModelPackage) -> None:
    """Raise NotApplicable for a fixed number of rows, unless the package says that it runs that number only."""
    weights = weights_of(model.graph)
    axes = {spec.name: spec.row_axis for spec in package.manifest.inputs}
    for tensor in model.graph.input:
        sizes, axis = tensor.type.tensor_type.shape.dim, axes.get(tensor.name)
        if tensor.name in weights or axis is None or axis >= len(sizes):
            continue
        # Some exporters write -1 for a dimension that varies.
        rows = sizes[axis].dim_value
        if rows > 0 and rows not in package.manifest.batching.row_sizes:
            raise NotApplicable(
                f"input {tensor.name!r} of {package.file} has a frozen batch dimension of {rows}, which the package "
                "doesn't tell of; add the file again with `headrace models add`, or export it with a dynamic one"
            )


def _set_constants(model: onnx.ModelProto, package: ModelPackage) -> None:
    """Make what the package sets the default of its input, so that the model runs without it."""
    from onnx import numpy_helper

    inputs, already = {value.name for value in model.graph.input}, weights_of(model.graph)
    for constant in package.manifest.constants:
        if constant.name in inputs and constant.name not in already:
            model.graph.initializer.append(numpy_helper.from_array(constant.array(), constant.name))
            # Constant tensors may be inputs with a default from this version of the format on.
            model.ir_version = max(model.ir_version, 4)


def require_constants(model: onnx.ModelProto, package: ModelPackage) -> None:
    """Make what the package sets inputs without a default again, also where a quantizer dropped them.

    The runtime gives the model what its package sets, and refuses a file that has no such input.
    """
    from onnx import helper

    graph, names = model.graph, {constant.name for constant in package.manifest.constants}
    have = {value.name for value in graph.input}
    for constant in package.manifest.constants:
        if constant.name not in have:
            array = constant.array()
            datatype = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(constant.name, datatype, array.shape))
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _write_out_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _raise_opset(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    from onnx import version_converter

    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if opset == 0 or opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as exc:  # The converter raises RuntimeError and classes of its own C++ module.
        raise CompressionError(
            f"{path} is of opset {opset}, and can't be raised to {OLDEST_OPSET}: {first_line(exc)}; export the model "
            f"again with opset {OLDEST_OPSET} or newer"
        ) from exc
