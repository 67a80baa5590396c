"""Tensor specifications of a package: the file's declaration, corrected by the trial."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headrace.contracts import TensorSpec
from headrace.contracts.tensors.datatypes import FLOATS
from headrace.lifecycle.packages.declared import DeclaredTensor
from headrace.lifecycle.packages.trial.dimensions import Dims, is_nameless, named_dims, size_of
from headrace.lifecycle.packages.trial.layouts import Layout
from headrace.lifecycle.packages.trial.runs import Seen


def input_specs(
    inputs: Sequence[DeclaredTensor],
    layout: Layout,
    seen: Sequence[Seen],
    *,
    allow_nan: bool,
    free: Collection[tuple[str, str]] = (),
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a package.

    seen: runs, the first that of one ordinary row. free: input and symbol, where the model takes other sizes than those
    of the same name elsewhere.
    """
    specs = []
    for tensor in inputs:
        axis = layout.axes[tensor.name]
        if tensor.sequence and tensor.dims is None:
            specs.append(_anything(tensor, allow_nan=allow_nan))
            continue
        dims = layout.row_dims(tensor.name)
        shape = tuple(size if isinstance(size, int) else -1 for size in dims)
        specs.append(
            TensorSpec(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=shape,
                rows_at=axis or 0,
                per_request=axis is None,
                symbols=_symbols(tensor.name, dims, free),
                optional=tensor.optional,
                sequence=tensor.sequence,
                allow_nan=allow_nan or tensor.datatype not in FLOATS,
                sample_shape=_sample(tensor.name, axis, shape, seen),
            )
        )
    return tuple(specs)


def _anything(tensor: DeclaredTensor, *, allow_nan: bool) -> TensorSpec:
    """Return the spec of a sequence of tensors of any rank."""
    return TensorSpec(
        name=tensor.name,
        datatype=tensor.datatype,
        per_request=True,
        any_shape=True,
        optional=tensor.optional,
        sequence=True,
        allow_nan=allow_nan or tensor.datatype not in FLOATS,
    )


def _symbols(name: str, dims: Dims, free: Collection[tuple[str, str]]) -> tuple[str, ...]:
    symbols = tuple("" if isinstance(dim, int) or is_nameless(dim) or (name, dim) in free else dim for dim in dims)
    return symbols if any(symbols) else ()


def _sample(name: str, axis: int | None, shape: tuple[int, ...], seen: Sequence[Seen]) -> tuple[int, ...]:
    if -1 not in shape:
        return ()
    whole = next((run.inputs[name] for run in seen if name in run.inputs), None)
    if whole is None or 0 in whole:
        return ()
    return whole if axis is None else whole[:axis] + whole[axis + 1 :]


def output_specs(
    outputs: Sequence[DeclaredTensor],
    axes: Mapping[str, int | None],
    inputs: Sequence[TensorSpec],
    seen: Sequence[Seen],
    *,
    independent: bool,
    steered: bool = False,
) -> tuple[TensorSpec, ...]:
    """Return the outputs of a package.

    axes: output → the dimension of its rows; None is none. independent: whether rows are. steered: whether the values
    of an input decide sizes, as a shape or an axis does. What the file leaves open was decided by its own sizes where
    the rows are independent and nothing else varies; a name such as "boxes" says that data decide.
    """
    fixed = independent and not any(spec.varies or spec.per_request for spec in inputs)
    known = {symbol for spec in inputs for symbol in spec.symbols if symbol}
    specs = []
    for tensor in outputs:
        axis = axes.get(tensor.name)
        found = [run.outputs[tensor.name] for run in seen if tensor.name in run.outputs]
        if axis is None and _has_any_shape(tensor, found, steered=steered):
            specs.append(TensorSpec(name=tensor.name, datatype=tensor.datatype, per_request=True, any_shape=True))
            continue
        declared = _declared(tensor, found)
        places = [place for place in range(len(declared)) if place != axis]
        learned = fixed and axis is not None
        seen_sizes = ({each[place] for each in found} for place in places)
        shape = tuple(
            -1 if steered else _size(declared[place], sizes, learned=learned)
            for place, sizes in zip(places, seen_sizes, strict=True)
        )
        sized = list(zip(places, shape, strict=True))
        symbols = tuple(_borne_out(declared[place], size, place, (tensor.name, seen, known)) for place, size in sized)
        specs.append(_output(tensor, axis, shape, symbols))
    return tuple(specs)


def _output(tensor: DeclaredTensor, axis: int | None, shape: tuple[int, ...], symbols: tuple[str, ...]) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=shape,
        rows_at=axis or 0,
        per_request=axis is None,
        symbols=symbols if any(symbols) else (),
        sequence=tensor.sequence and bool(shape),
    )


def _has_any_shape(tensor: DeclaredTensor, found: list[tuple[int, ...]], *, steered: bool) -> bool:
    """Return whether even the number of an output's dimensions varies, or can't be known."""
    ranks = {len(shape) for shape in found}
    unknown = tensor.dims is None and not ranks
    contradicted = tensor.dims is not None and not tensor.sequence and bool(ranks - {len(tensor.dims)})
    return steered or unknown or contradicted or len(ranks) > 1


def _declared(tensor: DeclaredTensor, found: list[tuple[int, ...]]) -> Dims:
    """Return the dimensions of an output, of as many as were seen."""
    declared = named_dims(tensor, 0)
    rank = len(found[0]) if found else len(declared)
    if len(declared) == rank:
        return declared
    return tuple(f"{tensor.name}[{index}]" for index in range(rank))


def _size(declared: int | str, found: set[int], *, learned: bool) -> int:
    if len(found) > 1 or 0 in found:
        return -1
    if isinstance(declared, int) and found <= {declared}:
        return declared
    if isinstance(declared, int):
        return next(iter(found)) if learned else -1
    return next(iter(found), -1) if learned and is_nameless(declared) else -1


def _borne_out(
    declared: int | str, size: int, place: int, evidence: tuple[str, Sequence[Seen], Collection[str]]
) -> str:
    """Return the symbol of an output's dimension if each run bore it out, and it was not the same in all.

    evidence: name of the output, runs, and the symbols of the inputs.
    """
    name, seen, known = evidence
    if size != -1 or isinstance(declared, int) or declared not in known:
        return ""
    pairs = {(size_of(declared, run.sizes), run.outputs[name][place]) for run in seen if name in run.outputs}
    return declared if len(pairs) > 1 and all(want == have for want, have in pairs) else ""
