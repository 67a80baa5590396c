"""Inputs and outputs of a loaded model file, and how they go with those that a package lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, PackageError, Signature, Tensors
from headrace.contracts.datatypes import datatype_of, dtype_of
from headrace.contracts.signature import TensorSpec

#: Datatypes that only ONNX Runtime takes here: numpy has no type of its own for them that other libraries know.
UNSUPPORTED: Final = frozenset({"BYTES", "BF16"})


class Port(NamedTuple):
    """One input or output of a loaded file. dtype: None is unknown. shape: with rows; -1 varies; None is unknown."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None


def refuse_datatypes(package: ModelPackage, runtime: str, unsupported: Collection[str] = UNSUPPORTED) -> None:
    """Raise PackageError naming inputs and outputs of datatypes that a runtime can't take."""
    signature = package.manifest.signature
    for spec in (*signature.inputs, *signature.outputs):
        if spec.datatype in unsupported:
            raise PackageError(
                f"{package.folder} has {spec.name!r} of {spec.datatype}, which {runtime} can't take; "
                "serve the model with onnxruntime"
            )


def match_ports(
    package: ModelPackage, kind: str, specs: Sequence[TensorSpec], ports: Sequence[Port], *, by_position: bool
) -> list[int]:
    """Give the index among `ports` of each of a package's inputs or outputs, in the package's order.

    Names decide. by_position: where no name agrees, the order does, as with formats that keep no names.
    kind: "input" or "output". Raises PackageError when names, count, datatypes or shapes differ.
    """
    names = [port.name for port in ports]
    wanted = [spec.name for spec in specs]
    if set(wanted) <= set(names) and (kind == "output" or len(wanted) == len(names)):
        found = [names.index(name) for name in wanted]
    elif by_position and len(wanted) == len(names) and not set(wanted) & set(names):
        found = list(range(len(names)))
    else:
        raise PackageError(
            f"{package.file} has the {kind}s {', '.join(names)}, but model.toml lists {', '.join(wanted)}"
        )
    for spec, index in zip(specs, found, strict=True):
        _compare(package, kind, spec, ports[index])
    return found


def _compare(package: ModelPackage, kind: str, spec: TensorSpec, port: Port) -> None:
    wanted = dtype_of(spec.datatype)
    if port.dtype is not None and port.dtype != wanted and not (kind == "output" and widens(port.dtype, wanted)):
        raise PackageError(
            f"{package.file} has {kind} {spec.name!r} of {datatype_of(port.dtype)}, but model.toml says {spec.datatype}"
        )
    if port.shape is not None and not _shapes_agree((-1, *spec.shape), port.shape):
        raise PackageError(
            f"{package.file} has {kind} {spec.name!r} of shape {list(port.shape)}, "
            f"but model.toml says {list(spec.shape)} after the rows"
        )


def _shapes_agree(wanted: Sequence[int], found: Sequence[int]) -> bool:
    return len(wanted) == len(found) and all(
        -1 in pair or len(set(pair)) == 1 for pair in zip(wanted, found, strict=True)
    )


def widens(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Say whether every value of one datatype is one of the other, as INT32 for INT64; converters narrow labels so."""
    return found.kind == wanted.kind and np.can_cast(found, wanted, "safe")


class Feed:
    """Checks a batch against the signature, and gives its arrays in order, contiguous and writeable.

    Libraries don't all do it: for an input that is missing, of a wrong shape or without rows, OpenVINO 2026.4 runs on
    what the last request left behind.
    """

    def __init__(self, signature: Signature) -> None:
        """Prepare the comparisons."""
        self._specs = [(spec.name, dtype_of(spec.datatype), spec.shape) for spec in signature.inputs]

    def __call__(self, inputs: Tensors) -> list[NDArray[Any]]:
        """Give the arrays in the order of the signature. Raises ValueError naming the input that doesn't fit."""
        if len(inputs) != len(self._specs):
            raise ValueError(f"the model takes {len(self._specs)} inputs, not {len(inputs)}")
        rows = -1
        arrays = []
        for name, dtype, shape in self._specs:
            array = inputs.get(name)
            if array is None:
                raise ValueError(f"input {name!r} is missing")
            if array.dtype != dtype or not _shapes_agree((rows, *shape), array.shape):
                raise ValueError(f"input {name!r} is {array.dtype} {list(array.shape)}, not {dtype} {[rows, *shape]}")
            rows = len(array)
            if not rows:
                raise ValueError(f"input {name!r} has no rows")
            arrays.append(array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C"))
        return arrays
