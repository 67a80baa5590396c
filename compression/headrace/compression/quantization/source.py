"""Opens the ONNX file of a package for a step: what it can't change is refused here, by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.wording import first_line

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
    if package.size_bytes > _MAX_FILE_BYTES:
        raise NotApplicable(f"{package.file} is larger than 2 GiB, which one ONNX file can't hold; prune it first")
    package.verify()
    model = _load(package.file, what)
    _refuse_foreign_operators(model, package.file, what)
    _refuse_frozen_rows(model, package.file)
    model = _raise_opset(_write_out_functions(model), package.file)
    name_nodes(model.graph)
    return model


def refuse_quantized(model: onnx.ModelProto, what: str) -> None:
    """Raise NotApplicable when a model is quantized already."""
    found = sorted({node.op_type for node in nodes_of(model.graph) if node.op_type.startswith(_QUANTIZED)})
    if found:
        raise NotApplicable(f"the model is quantized already ({', '.join(found)}); {what} starts from a float version")


def prepare(model: onnx.ModelProto, room: Path) -> onnx.ModelProto:
    """Fold constants and batch normalisation into weights, and infer the types and shapes of all tensors.

    room: for ONNX Runtime to write in. Raises CompressionError when it can't load the model.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Basic optimisations only: they stay within standard ONNX and hold on every machine.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(room / "prepared.onnx")
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        prepared = onnx.load(options.optimized_model_filepath)
        # protobuf merges it; data propagation gives shapes that other tensors carry.
        prepared = onnx.shape_inference.infer_shapes(prepared, data_prop=True)
    except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
        raise CompressionError(f"ONNX Runtime can't prepare the model: {first_line(exc)}; export it again") from exc
    finally:
        Path(options.optimized_model_filepath).unlink(missing_ok=True)
    name_nodes(prepared.graph)
    return prepared


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
    """Give the constant tensors of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Give the node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Give the nodes that read each tensor."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Give the values of a constant tensor."""
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
    """Give the nodes of these operators whose second input is a constant float32 weight, in the order of the graph."""
    weights = weights_of(graph)
    return [
        node
        for node in graph.node
        if node.op_type in operators
        and len(node.input) > 1
        and (weight := weights.get(node.input[1])) is not None
        and weight.data_type == weight.FLOAT
    ]


def split_gemms(model: onnx.ModelProto, chosen: set[str]) -> None:
    """Write Gemm as MatMul and Add where its weight is constant, for steps that know MatMul alone.

    chosen: names of the nodes; the MatMul keeps the name. Weights are transposed and scaled once, here.
    """
    from onnx import helper, numpy_helper

    weights = weights_of(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.name not in chosen or attribute(node, "transA", 0):
            nodes.append(node)
            continue
        weight = array_of(weights[node.input[1]])
        weight = (weight.T if attribute(node, "transB", 0) else weight) * np.float32(attribute(node, "alpha", 1))
        name = f"{node.name}_weight"
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight), name))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.name}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=node.name))
        if biased:
            nodes += _scaled_bias(model, node, product)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model.graph)


def _scaled_bias(model: onnx.ModelProto, gemm: onnx.NodeProto, product: str) -> list[onnx.NodeProto]:
    from onnx import helper, numpy_helper

    nodes = []
    bias, beta = gemm.input[2], attribute(gemm, "beta", 1)
    if beta != 1:
        model.graph.initializer.append(numpy_helper.from_array(np.array(beta, np.float32), f"{gemm.name}_beta"))
        nodes.append(helper.make_node("Mul", [bias, f"{gemm.name}_beta"], [f"{gemm.name}_bias"], name=f"{gemm.name}_b"))
        bias = f"{gemm.name}_bias"
    nodes.append(helper.make_node("Add", [product, bias], [gemm.output[0]], name=f"{gemm.name}_add"))
    return nodes


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
        for found in node.attribute:
            for inner in (*([found.g] if found.HasField("g") else []), *found.graphs):
                yield from nodes_of(inner)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node after those whose tensors it reads, as ONNX asks; otherwise the order stays."""
    makers = producers(graph)
    sorted_nodes: list[onnx.NodeProto] = []
    placed: set[str] = set()
    # Each node with what it still waits for; a stack, since graphs are deeper than Python's recursion.
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
    for found in node.attribute:
        for graph in (*([found.g] if found.HasField("g") else []), *found.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, the same each time: nodes are left out of a step by name."""
    taken: set[str] = set()
    for position, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)


def chosen_nodes(model: onnx.ModelProto, exclude: tuple[str, ...]) -> set[str]:
    """Give the names of the nodes that a step may change.

    exclude: names of nodes or of operators, such as `Softmax`. Raises CompressionError for what the model hasn't.
    """
    names = {node.name for node in model.graph.node}
    operators = {node.op_type for node in model.graph.node}
    if unknown := [name for name in exclude if name not in names | operators]:
        raise CompressionError(
            f"the model has neither a node nor an operator named {', '.join(map(repr, unknown))} to exclude; "
            f"its operators are {', '.join(sorted(operators))}"
        )
    return {node.name for node in model.graph.node if not {node.name, node.op_type} & set(exclude)}


def need(module: str, what: str) -> None:
    """Raise MissingLibrary when a module of the extra isn't installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingLibrary(what, EXTRA)


def _load(path: Path, what: str) -> onnx.ModelProto:
    for module in ("onnx", "onnxruntime"):
        need(module, what)
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

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


def _refuse_frozen_rows(model: onnx.ModelProto, path: Path) -> None:
    weights = weights_of(model.graph)
    for tensor in model.graph.input:
        sizes = tensor.type.tensor_type.shape.dim
        if tensor.name not in weights and sizes and sizes[0].dim_value:
            raise NotApplicable(
                f"input {tensor.name!r} of {path} has a frozen batch dimension of {sizes[0].dim_value}, so the model "
                "can't take batches of any size; export it with a dynamic first dimension"
            )


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
