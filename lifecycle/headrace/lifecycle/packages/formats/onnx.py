"""ONNX files."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.contracts import PackageError
from headrace.contracts.formatting import first_line
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.libraries import library
from headrace.lifecycle.packages.formats.onnx_weights import MAX_FILE_BYTES, graphs_of, place_weights
from headrace.lifecycle.packages.formats.origin import origin_of
from headrace.lifecycle.packages.formats.sizes import declared_size
from headrace.lifecycle.packages.formats.zipmap import replace_zipmaps
from headrace.lifecycle.packages.graph_facts import graph_of
from headrace.runtimes.local.onnx_support.session import SessionFailed, open_session
from headrace.runtimes.local.onnx_support.types import ELEMENTS

if TYPE_CHECKING:
    import onnx

MODEL_FILE: Final = "model.onnx"

#: A tensor, a sequence of tensors, and either of them where it may be absent.
_TYPE: Final = re.compile(r"(?P<optional>optional\()?(?P<sequence>seq\()?tensor\((?P<element>\w+)\)\)*")

#: Weights are inputs with a default too where exporters list them so; those that are meant are few and small.
_MAX_DEFAULTS: Final = 16
_MAX_DEFAULT_VALUES: Final = 1024

#: What ONNX Runtime puts before the cause: its code, and the path of the copy.
_PREAMBLE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .* failed:)?\s*")

#: Domains of operators that ONNX Runtime brings itself.
_OWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
_OWN_PREFIX: Final = "com.microsoft"


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:  # noqa: ARG001
    """Copy an ONNX file with its weights into a package's folder. Raises PackageError.

    Weights beside the file are taken into it, unless they are too large for one. scikit-learn's ZipMap, which makes
    dicts of a table of scores, is left out. sample: not needed.
    """
    library("onnx", "worker")
    library("onnxruntime", "worker")
    model = _read(source)
    labels = replace_zipmaps(model.graph)
    weights = place_weights(model, source, folder)
    target = folder / MODEL_FILE
    if labels is None and weights is None:
        shutil.copyfile(source, target)
    else:
        target.write_bytes(model.SerializeToString())
    inputs, outputs = _declared(target, source, model)
    return DeclaredModel(
        runtime="onnxruntime",
        file=MODEL_FILE,
        files=tuple(weights or ()),
        inputs=inputs,
        outputs=outputs,
        labels=tuple(labels or ()),
        graph=graph_of(model),
        facts={**origin_of(source), **_facts(model), **({"left_out": "ZipMap"} if labels is not None else {})},
    )


def _read(source: Path) -> onnx.ModelProto:
    """Read the graph, without weights that lie in other files."""
    import onnx
    from google.protobuf.message import DecodeError

    if source.stat().st_size > MAX_FILE_BYTES:
        raise PackageError(f"{source} is larger than 2 GiB, which no ONNX file can be; its weights belong beside it")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(source.read_bytes())
    except DecodeError as exc:
        raise PackageError(
            f"{source} is not an ONNX file, or a damaged one; download or copy it again, and compare its size"
        ) from exc
    if not model.graph.output:
        raise PackageError(f"{source} is not an ONNX model: there is no graph with outputs in it; add the model itself")
    return model


def _facts(model: onnx.ModelProto) -> dict[str, Any]:
    producer = f"{model.producer_name} {model.producer_version}".strip()
    opset = max((opset.version for opset in model.opset_import if opset.domain in {"", "ai.onnx"}), default=0)
    return {"opset": opset, **({"producer": producer} if producer else {})}


def _declared(
    target: Path, source: Path, model: onnx.ModelProto
) -> tuple[tuple[DeclaredTensor, ...], tuple[DeclaredTensor, ...]]:
    """Read inputs and outputs as ONNX Runtime finds them in the copy."""
    import onnxruntime as ort

    try:
        session = open_session(target)
    except SessionFailed as exc:
        raise PackageError(f"ONNX Runtime {ort.__version__} can't load {source}: {_cause(exc.cause, model)}") from exc
    defaults = _meant_defaults(session.get_overridable_initializers())
    inputs = [*session.get_inputs(), *defaults]
    if not inputs:
        raise PackageError(f"{source} has no inputs, so there is nothing to ask it; add a model that takes data")
    optional = {node.name for node in defaults}
    reader = _Reader(source, model.graph)
    return (
        tuple(reader.tensor("input", node, default=node.name in optional) for node in inputs),
        tuple(reader.tensor("output", node) for node in session.get_outputs()),
    )


def _meant_defaults(nodes: Sequence[Any]) -> list[Any]:
    """Return the inputs with a default that a caller may want to set."""
    if len(nodes) > _MAX_DEFAULTS:
        return []
    return [
        node
        for node in nodes
        if _TYPE.fullmatch(node.type)
        and all(isinstance(size, int) for size in node.shape)
        and math.prod(node.shape) <= _MAX_DEFAULT_VALUES
    ]


class _Reader:
    """Declares inputs and outputs, as ONNX Runtime describes them, of a file."""

    def __init__(self, source: Path, graph: onnx.GraphProto) -> None:
        self._source = source
        self._graph = graph
        self._shapes = _declared_shapes([*graph.input, *graph.output])

    def tensor(self, kind: str, node: Any, *, default: bool = False) -> DeclaredTensor:
        """Declare one. default: whether the file has a value for it. Raises PackageError for what no request holds."""
        found = _TYPE.fullmatch(node.type)
        datatype = ELEMENTS.get(found["element"]) if found else None
        if found is None or datatype is None:
            what = "dicts" if "map(" in node.type else "values"
            raise PackageError(
                f"{self._source} has the {kind} {node.name!r} of type {node.type}: {what} that a request of tensors "
                f"can't hold; {self._cut(kind, node.name)}"
            )
        sequence = found["sequence"] is not None
        # For an unknown shape, and for that of a sequence's tensors, ONNX Runtime says the same as for a number's.
        shape = node.shape or self._shapes.get(node.name)
        dims = None if shape is None else tuple(declared_size(size) for size in shape)
        empty = kind == "input" and not sequence and 0 in (dims or ())
        if dims is not None and empty and not _is_one_value(dims):
            raise PackageError(
                f"{self._source} has the input {node.name!r} of shape {list(dims)}, which never holds a value; "
                f"{self._cut(kind, node.name)}"
            )
        return DeclaredTensor(
            name=node.name,
            datatype=datatype,
            dims=dims if empty or dims is None else tuple(None if size == 0 else size for size in dims),
            optional=default or (kind == "input" and found["optional"] is not None),
            sequence=sequence,
        )

    def _cut(self, kind: str, name: str) -> str:
        """Return the command that makes a smaller model of the file, for which nobody needs the training code."""
        nodes = self._graph.node
        weights = {tensor.name for tensor in self._graph.initializer}
        inputs = [value.name for value in self._graph.input if value.name not in weights | {name}]
        outputs = [value.name for value in self._graph.output if value.name != name]
        if kind == "input":
            inputs += [each for node in nodes if name in node.input for each in node.output if each]
            where = f"after the step that reads {name!r}, and send what that step would give"
        else:
            outputs += [each for node in nodes if name in node.output for each in node.input if each not in weights]
            where = f"before the step that makes {name!r}"
        target = self._source.with_name(f"{self._source.stem}-cut.onnx")
        return (
            f"cut the graph {where}: python -c \"import onnx; onnx.utils.extract_model('{self._source}', '{target}', "
            f'{inputs}, {outputs}, check_model=False)", then add {target}'
        )


def _is_one_value(dims: tuple[int | str | None, ...]) -> bool:
    """Return whether a shape holds one value alone, which lists can write: there is nothing in the last dimension."""
    return dims[-1] == 0 and all(isinstance(size, int) and size > 0 for size in dims[:-1])


def _declared_shapes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, Sequence[Any] | None]:
    """Return the shapes in a file, of sequences those of their tensors; None is unknown."""
    shapes: dict[str, Sequence[Any] | None] = {}
    for value in values:
        kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
        kind = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind
        tensor = kind.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]
        shapes[value.name] = sizes if tensor.HasField("shape") else None
    return shapes


def _cause(exc: Exception, model: onnx.ModelProto) -> str:
    """Return why ONNX Runtime refuses a model, and what can be done about it."""
    text = _PREAMBLE.sub("", first_line(exc))
    if foreign := _foreign_operator(model):
        domain, operator = foreign
        extensions = " (that of onnxruntime-extensions)" if domain == "ai.onnx.contrib" else ""
        return (
            f"its operator {operator} of the domain {domain!r} needs a library of custom operators{extensions}, which "
            "headrace doesn't load; use a file of the model without such steps, or do them before the request"
        )
    if "IR version" in text or "till opset" in text or "is under development" in text:
        return f"{text.partition('. ')[0]}; it is newer than the installed version: pip install -U onnxruntime"
    return f"{text}; it is damaged or was made for another version: pip install -U onnxruntime, or export it again"


def _foreign_operator(model: onnx.ModelProto) -> tuple[str, str] | None:
    """Return domain and name of an operator that ONNX Runtime doesn't bring and the file doesn't define."""
    known = {function.domain for function in model.functions} | _OWN_DOMAINS
    for node in _nodes(model):
        if node.domain not in known and not node.domain.startswith(_OWN_PREFIX):
            return node.domain, node.op_type
    return None


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs_of(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node
