"""The comparison of an export with its network, on real and random rows; and its entries in the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.compression.data.random_rows import random_rows
from headrace.compression.errors import CompressionError
from headrace.compression.export.parity import check_parity
from headrace.compression.export.trace import CHECKED_ROWS, repeated, shapes_of
from headrace.compression.steps import Step, StepContext, step_record
from headrace.contracts import ModelPackage, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.tensors.datatypes import FLOATS, datatype_of

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: Largest difference of an output that is allowed, in units of 1 + its largest absolute value.
TOLERANCE: Final = 1e-4


def batching_of(network: Network, *, tried: ModelPackage) -> BatchingAdvice:
    """Return the network's advice, but for what the trial of its export found of its rows."""
    advice = network.batching.unmeasured()
    if tried.manifest.batching.independent_rows:
        return advice
    return msgspec.structs.replace(advice, independent_rows=False, row_sizes=())


def provenance_of(network: Network, step: Step) -> dict[str, Any]:
    """Return the provenance of a network's export."""
    steps = [*network.provenance.get("steps", []), step_record(step)]
    return {"source": network.origin or network.name, **network.provenance, "steps": steps}


def input_specs(network: Network) -> tuple[TensorSpec, ...]:
    """Return the inputs of a network as a package declares them."""
    return tuple(
        TensorSpec(
            name=name,
            datatype=datatype_of(array.dtype),
            shape=shape,
            allow_nan=network.allow_nan or datatype_of(array.dtype) not in FLOATS,
        )
        for (name, array), shape in zip(network.example.items(), shapes_of(network), strict=True)
    )


def other_sizes(network: Network) -> list[Tensors]:
    """Return random rows with about half the size in every dimension that varies, if any does and torch can run it."""
    if not any(-1 in shape for shape in shapes_of(network)):
        return []
    batch: Tensors = {}
    for spec, array in zip(input_specs(network), network.example.values(), strict=True):
        sizes = zip(spec.shape, array.shape[1:], strict=True)
        shape = tuple(-(-size // 2) + 1 if want == -1 else size for want, size in sizes)
        batch |= random_rows([msgspec.structs.replace(spec, shape=shape)], CHECKED_ROWS[1], 1)
    try:
        network.infer(batch)
    except Exception:  # noqa: BLE001  (some networks take certain sizes only, and say so in their own ways)
        return []
    return [batch]


def compare(
    network: Network, context: StepContext, run: Callable[[Tensors], Tensors], tolerance: float, what: str
) -> None:
    """Compare all outputs of an export and its network on real and random rows.

    run: the export. tolerance: the largest difference, in units of 1 + the output's largest absolute value. what: the
    name of the export in errors. Raises CompressionError.
    """
    fixed = [
        msgspec.structs.replace(spec, shape=array.shape[1:])
        for spec, array in zip(input_specs(network), network.example.values(), strict=True)
    ]
    train = context.data.train.inputs
    real = {name: train.get(name, array) for name, array in network.example.items()}
    if any(not len(real[name]) or real[name].shape[1:] != array.shape[1:] for name, array in network.example.items()):
        real = network.example
    batches = [repeated(rows, count) for rows in (network.example, real) for count in CHECKED_ROWS]
    batches += [random_rows(fixed, count, 1) for count in CHECKED_ROWS] + other_sizes(network)
    for batch in batches:
        expected = network.infer(batch)
        try:
            found = run(batch)
        except Exception as exc:  # runtimes raise what they like
            rows = len(next(iter(batch.values())))
            raise CompressionError(
                f"{what} fails on {rows} rows that the network itself can run: {first_line(exc)}"
            ) from exc
        check_parity(expected, found, tolerance, what)
