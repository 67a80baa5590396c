"""Tracing of torch networks into programs that take any number of rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.compression.errors import CompressionError
from headrace.compression.silence import silenced
from headrace.contracts import HeadraceError, Tensors
from headrace.contracts.formatting import first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from headrace.compression.networks.network import Network

#: Row counts at which an export is compared: alone, a few, and no power of two.
CHECKED_ROWS: Final = (1, 3, 17)

#: Row counts for tracing; torch takes dimensions of the same size for one, so the first that no dimension has.
_TRACED_ROWS: Final = (5, 7, 11, 13, 17, 19, 23, 29)

_FREE_SIZES: Final = "its forward must not write sizes as numbers: use x.shape[0], -1 or flatten(1)"

#: Those that tell of the exporter's own affairs; where tracing fails, torch also prints the whole graph.
LOGGERS: Final = ("torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")

#: How torch says that a dimension which was to vary became a number; inputs of the wrapper are `inputs`.
_SPECIALISED: Final = re.compile(r"L\['inputs'\]\[(\d+)\]\.size\(\)\[(\d+)\].{0,80}?constant \((\d+)\)", re.DOTALL)


def trace(network: Network) -> ExportedProgram:
    """Trace a network into a torch program that takes any number of rows by position and gives a tuple.

    Raises CompressionError when the network has a frozen number of rows, or does what can't be traced.
    """
    import torch

    _check_any_rows(network)
    arguments = network.arguments(_traced_rows(network))
    dynamic = torch.export.Dim.DYNAMIC
    dimensions = tuple(
        {0: dynamic, **{i: dynamic for i, size in enumerate(shape, 1) if size == -1}} for shape in shapes_of(network)
    )
    with silenced(*LOGGERS):
        try:
            # Inputs of the wrapper are *args: one parameter, whose dimensions are a tuple.
            return torch.export.export(network.positional(), arguments, dynamic_shapes=(dimensions,))
        except Exception as exc:  # torch's tracer raises whatever the user's code or its own passes raise
            raise _trace_failed(network, exc) from exc


def _check_any_rows(network: Network) -> None:
    """Refuse a network that can't run batches of any size, before tracing, whose errors are hard to read."""
    for rows in CHECKED_ROWS:
        try:
            outputs = network.infer(repeated(network.example, rows))
        except HeadraceError:
            raise
        except Exception as exc:  # whatever the user's code raises
            raise CompressionError(
                f"network {network.name!r} fails on {rows} rows ({first_line(exc)}), so it may have a frozen batch "
                f"dimension; {_FREE_SIZES}"
            ) from exc
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != rows:
                raise CompressionError(
                    f"output {name!r} of network {network.name!r} has the shape {list(array.shape)} for {rows} rows; "
                    "its first dimension must be the rows"
                )


def _trace_failed(network: Network, exc: Exception) -> CompressionError:
    if found := _SPECIALISED.search(str(exc)):
        name = list(network.example)[int(found[1])]
        what = "batch dimension" if found[2] == "0" else f"dimension {found[2]}"
        return CompressionError(
            f"network {network.name!r} has a frozen {what} of {found[3]} in input {name!r} when it is traced, "
            f"so it would not take other sizes; {_FREE_SIZES}"
        )
    return CompressionError(
        f"network {network.name!r} can't be traced: {cause_of(exc)}; its forward must not branch on values of tensors"
    )


def shapes_of(network: Network) -> tuple[tuple[int, ...], ...]:
    """Return the shape of every input without rows, -1 where it varies. Raises CompressionError when they don't fit."""
    have = tuple(array.shape[1:] for array in network.example.values())
    shapes = network.shapes or have
    if len(shapes) != len(have) or any(
        len(shape) != len(sizes) or any(want not in {-1, size} for want, size in zip(shape, sizes, strict=True))
        for shape, sizes in zip(shapes, have, strict=False)
    ):
        raise CompressionError(
            f"the shapes {list(map(list, shapes))} of network {network.name!r} don't fit its example rows, which have "
            f"{list(map(list, have))}; give every input's, without rows"
        )
    return shapes


def _traced_rows(network: Network) -> Tensors:
    sizes = {size for array in network.example.values() for size in array.shape[1:]}
    rows = next((rows for rows in _TRACED_ROWS if rows not in sizes), _TRACED_ROWS[-1])
    return repeated(network.example, rows)


def repeated(inputs: Tensors, rows: int) -> Tensors:
    """Return this number of rows, repeated when there are fewer."""
    return {name: array[np.arange(rows) % len(array)] for name, array in inputs.items()}


def cause_of(exc: Exception) -> str:
    """Return the innermost cause in one line: the exporter wraps it into pages about itself."""
    inner: BaseException = exc
    while inner.__cause__ is not None:
        inner = inner.__cause__
    lines = [line.strip(" -*\t") for line in str(inner).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400] if lines else type(inner).__name__
