"""Programs of `torch.export.save` (`.pt2`)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import PackageError
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.libraries import library
from headrace.lifecycle.packages.formats.origin import FORGETS, origin_of
from headrace.lifecycle.packages.formats.sizes import declared_size
from headrace.lifecycle.packages.graph_facts import SMALL, Graph, numbers_of

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.export import ExportedProgram
    from torch.fx import Node

MODEL_FILE: Final = "model.pt2"

#: Operators whose constants are worth trying as data before others.
_COMPARISONS: Final = frozenset({
    "eq", "ne", "gt", "ge", "lt", "le", "where", "clamp", "clamp_min", "clamp_max", "maximum", "minimum",
})  # fmt: skip


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:  # noqa: ARG001
    """Copy a `.pt2` program into a package's folder; nothing in it is unpickled. Raises PackageError.

    Results of a dict have its keys as names; those of a tuple are `output_0`, `output_1` …; a single one is `output`.
    sample: not needed.
    """
    torch = library("torch", "torch")
    from headrace.runtimes.local.pt2_archive import check_archive
    from headrace.runtimes.local.torch_program import kept_buffers, read_program

    check_archive(source)
    try:
        program = read_program(source)
    except Exception as exc:  # torch raises whatever its parts raise, from KeyError to AssertionError.
        raise PackageError(
            f"torch {torch.__version__} can't load {source}: {first_line(exc)}; it was damaged, or saved by another "
            "version of torch"
        ) from exc
    shutil.copyfile(source, folder / MODEL_FILE)
    inputs, outputs = _names(program)
    return DeclaredModel(
        runtime="torch",
        file=MODEL_FILE,
        inputs=tuple(_tensor(source, "input", name, name, program) for name in inputs),
        outputs=tuple(_tensor(source, "output", name, node, program) for name, node in outputs),
        facts={
            **origin_of(source),
            **(FORGETS if kept_buffers(program) else {}),
        },
        graph=_graph(program),
    )


def _graph(program: ExportedProgram) -> Graph:
    """Return the numbers in the program's text and in its small tensors, those of comparisons first."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    compared = [node for node in calls if getattr(node.target, "_opname", "") in _COMPARISONS]
    literals = [_literals(node) for node in (*compared, *calls)]
    tensors = [value for value in (*program.constants.values(), *program.state_dict.values()) if _is_small(value)]
    lifted = [value.detach().cpu().to(_plain(value)).numpy() for value in tensors]
    first = literals[: len(compared)]
    return Graph(numbers=numbers_of([*first, *lifted, *literals[len(compared) :]]))


def _literals(node: Node) -> NDArray[Any]:
    numbers = [
        each
        for each in (*node.args, *node.kwargs.values())
        if isinstance(each, int | float) and not isinstance(each, bool)
    ]
    return np.array(numbers, np.float64)


def _is_small(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.numel() <= SMALL and not value.is_quantized


def _plain(value: Tensor) -> dtype:
    """Return a datatype that numpy has for a tensor's."""
    import torch

    return torch.float64 if value.dtype.is_floating_point else torch.int64


def _names(program: ExportedProgram) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of the inputs, and of the outputs with the nodes that they stand for."""
    nodes = [str(name) for name in program.graph_signature.user_outputs]
    spec = program.call_spec.out_spec
    if spec.type is dict and all(child.is_leaf() for child in spec.children()):
        names: Sequence[Any] = spec.context
    else:
        names = ["output"] if len(nodes) == 1 else [f"output_{number}" for number in range(len(nodes))]
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    return inputs, [(str(name), node) for name, node in zip(names, nodes, strict=True)]


def _tensor(source: Path, kind: str, name: str, node: str, program: ExportedProgram) -> DeclaredTensor:
    from headrace.runtimes.local.torch_program import numpy_dtype, value_of

    value: Tensor | None = value_of(node, program)
    if value is None:
        raise PackageError(f"{source} has the {kind} {name!r}, which is no tensor; export a module of tensors alone")
    dtype = numpy_dtype(value.dtype)
    if dtype is None:
        raise PackageError(
            f"{source} has the {kind} {name!r} of {value.dtype}, which the torch runtime can't take; cast it within "
            "the module, or serve the model as ONNX"
        )
    # Sizes that torch knows to be equal have one symbol.
    dims = tuple(declared_size(size if isinstance(size, int) else str(size)) for size in value.shape)
    return DeclaredTensor(name=name, datatype=datatype_of(dtype), dims=dims)
