"""Inputs and outputs of a loaded model file, matched with those that its package lists."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, PackageError, Signature, Tensors
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.datatypes import datatype_of, dtype_of

#: Datatypes that only ONNX Runtime takes here: numpy has no type of its own for them that other libraries know.
UNSUPPORTED: Final = frozenset({"BYTES", "BF16"})


#: How inputs or outputs find each other where no name agrees: not at all; in their order, where the format knows them
#: by their places; or by datatype and shape, if these leave one way only.
ElseBy: TypeAlias = Literal["nothing", "order", "datatype and shape"]


class Port(NamedTuple):
    """One input or output of a loaded file. dtype: None is unknown. shape: with rows; -1 varies; None is unknown."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None


def refuse_datatypes(package: ModelPackage, runtime: str, unsupported: Collection[str] = UNSUPPORTED) -> None:
    """Raise PackageError naming inputs and outputs of datatypes that a runtime can't take."""
    signature = package.manifest.file_signature
    for spec in (*signature.inputs, *signature.outputs):
        if spec.datatype in unsupported:
            raise PackageError(
                f"{package.folder} has {spec.name!r} of {spec.datatype}, which {runtime} can't take; "
                "serve the model with onnxruntime"
            )


def match_ports(
    package: ModelPackage,
    kind: Literal["input", "output"],
    specs: Sequence[TensorSpec],
    ports: Sequence[Port],
    *,
    else_by: ElseBy,
) -> list[int]:
    """Return the index among `ports` of each of a package's inputs or outputs, in the package's order.

    Names decide. else_by: what does where no name agrees. Raises PackageError when names, count, datatypes or shapes
    differ.
    """
    names = [port.name for port in ports]
    wanted = [spec.name for spec in specs]
    if set(wanted) <= set(names) and (kind == "output" or len(wanted) == len(names)):
        found = [names.index(name) for name in wanted]
    elif else_by != "nothing" and len(wanted) == len(names) and not set(wanted) & set(names):
        found = list(range(len(names)))
        # Constants have no place among the inputs of a package.
        if else_by == "datatype and shape" or (kind == "input" and package.manifest.constants):
            found = _only_assignment(package, kind, specs, ports) or found
    else:
        raise PackageError(
            f"{package.file} has the {kind}s {', '.join(names)}, but model.toml lists {', '.join(wanted)}"
        )
    for spec, index in zip(specs, found, strict=True):
        _compare(package, kind, spec, ports[index])
    return found


def match_outputs(package: ModelPackage, ports: Sequence[Port], *, else_by: ElseBy) -> list[int]:
    """Return the index among `ports` of each output that a package keeps. Raises PackageError as `match_ports` does."""
    # An order holds for all outputs of a file, not for some.
    specs = package.manifest.outputs
    found = match_ports(package, "output", specs, ports, else_by=else_by)
    kept = {spec.name for spec in package.manifest.file_signature.outputs}
    return [index for spec, index in zip(specs, found, strict=True) if spec.name in kept]


def _only_assignment(
    package: ModelPackage, kind: str, specs: Sequence[TensorSpec], ports: Sequence[Port]
) -> list[int] | None:
    """Return the one way in which datatypes and shapes let specs and ports go together; None if there is none.

    Raises PackageError if there are several: a guess would answer one tensor with another.
    """
    fitting = [[at for at, port in enumerate(ports) if _mismatch(kind, spec, port) is None] for spec in specs]
    found = list(islice(_assignments(fitting, frozenset()), 2))
    if len(found) < 2:
        return found[0] if found else None
    raise PackageError(
        f"{package.file} has the {kind}s {', '.join(port.name for port in ports)}, and model.toml lists "
        f"{', '.join(spec.name for spec in specs)}: datatypes and shapes leave open which is which; name them in "
        "model.toml as the file does"
    )


def _assignments(fitting: Sequence[Sequence[int]], taken: frozenset[int]) -> Iterator[list[int]]:
    if not fitting:
        yield []
        return
    for at in fitting[0]:
        if at not in taken:
            for rest in _assignments(fitting[1:], taken | {at}):
                yield [at, *rest]


def _compare(package: ModelPackage, kind: str, spec: TensorSpec, port: Port) -> None:
    if (problem := _mismatch(kind, spec, port)) is not None:
        raise PackageError(f"{package.file} has {kind} {spec.name!r} of {problem}")


def _mismatch(kind: str, spec: TensorSpec, port: Port) -> str | None:
    """Describe how a port differs from a spec; None if it doesn't."""
    wanted = dtype_of(spec.datatype)
    if port.dtype is not None and port.dtype != wanted and not (kind == "output" and widens(port.dtype, wanted)):
        return f"{datatype_of(port.dtype)}, but model.toml says {spec.datatype}"
    whole = spec.whole_shape(-1)
    if port.shape is not None and not spec.any_shape and not _shapes_agree(whole, port.shape):
        return f"shape {list(port.shape)}, but model.toml says {list(whole)}"
    return None


def declared_rows(specs: Sequence[TensorSpec], ports: Sequence[Port], order: Sequence[int]) -> list[int]:
    """Return the numbers of rows that a file fixes; none when it takes any.

    order: the index among `ports` of each input.
    """
    axes = [(spec.row_axis, ports[index].shape) for spec, index in zip(specs, order, strict=True)]
    sizes = {shape[axis] for axis, shape in axes if axis is not None and shape is not None and axis < len(shape)}
    return sorted(sizes - {-1})


def _shapes_agree(wanted: Sequence[int], found: Sequence[int]) -> bool:
    return len(wanted) == len(found) and all(
        -1 in pair or len(set(pair)) == 1 for pair in zip(wanted, found, strict=True)
    )


def widens(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether every value of one datatype is one of the other, as INT32 for INT64; converters narrow labels."""
    return found.kind == wanted.kind and np.can_cast(found, wanted, "safe")


class Feed:
    """Checks a batch against the signature, and gives its arrays in order, contiguous and writeable.

    Libraries don't all do it: for an input that is missing, of a wrong shape or without rows, OpenVINO 2026.4 runs on
    what the last request left behind.
    """

    def __init__(self, signature: Signature) -> None:
        """Prepare the comparisons."""
        self._specs = [(spec, dtype_of(spec.datatype)) for spec in signature.inputs]

    def __call__(self, inputs: Tensors) -> list[NDArray[Any]]:
        """Return the arrays in the order of the signature. Raises ValueError naming the input that doesn't fit."""
        if len(inputs) != len(self._specs):
            raise ValueError(f"the model takes {len(self._specs)} inputs, not {len(inputs)}")
        rows = -1
        arrays = []
        for spec, dtype in self._specs:
            array = inputs.get(spec.name)
            if array is None:
                raise ValueError(f"input {spec.name!r} is missing")
            wanted = spec.whole_shape(rows)
            if array.dtype != dtype or not (spec.any_shape or _shapes_agree(wanted, array.shape)):
                found = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"input {spec.name!r} is {found}, not {dtype} {list(wanted)}")
            if not spec.per_request:
                rows = array.shape[spec.rows_at]
                if not rows:
                    raise ValueError(f"input {spec.name!r} has no rows")
            arrays.append(array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C"))
        return arrays
