"""Libraries that TVM built (`.so`, `.tar`): native code, which declares nothing about its inputs."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import HeadraceError, PackageError, Tensors
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.codec import as_array
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats.libraries import library
from headrace.lifecycle.packages.formats.origin import origin_of

Array = NDArray[Any]


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:
    """Copy a library into a package's folder, and run it on the sample. Raises PackageError.

    sample: gives names, datatypes and shapes of the inputs, in the library's order; outputs are `output_0` … .
    """
    if source.suffix == ".tar":
        _check_archive(source)
    library("tvm", "tvm")
    if sample is None:
        raise PackageError(
            f"{source}: a library of TVM doesn't tell what it takes; give --sample FILE.npz with one array for each "
            "input, in the order of the function `main`: numpy.savez('sample.npz', image=…)"
        )
    inputs = _read(sample)
    run = _load(source)
    outputs = run(inputs)
    free = _rows_are_free(run, inputs, outputs)
    target = f"model{source.suffix}"
    shutil.copyfile(source, folder / target)
    names = ["output"] if len(outputs) == 1 else [f"output_{number}" for number in range(len(outputs))]
    return DeclaredModel(
        runtime="tvm",
        file=target,
        inputs=tuple(_tensor(name, array, free=free) for name, array in inputs.items()),
        outputs=tuple(_tensor(name, array, free=free) for name, array in zip(names, outputs, strict=True)),
        facts=origin_of(source),
    )


def _check_archive(source: Path) -> None:
    """Refuse archives that hold something else than the compiled objects of a library."""
    try:
        with tarfile.open(source) as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError, EOFError) as exc:
        raise PackageError(f"{source} is a damaged archive: {first_line(exc)}; copy it again") from exc
    if not any(name.endswith(".o") for name in names):
        raise PackageError(f"{source} is an archive, but none that TVM wrote; unpack it and add the model file in it")


class _Library:
    """The function `main` of a library, on the CPU."""

    def __init__(self, source: Path, main: Any, arity: int) -> None:
        self._source = source
        self._main = main
        self._arity = arity

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs in their order. Raises PackageError when the library can't run the inputs."""
        import tvm

        if len(inputs) != self._arity:
            raise PackageError(
                f"{self._source} takes {self._arity} inputs, but the sample has {len(inputs)}: {', '.join(inputs)}"
            )
        device = tvm.cpu()
        try:
            result = self._main(*(tvm.runtime.tensor(array, device) for array in inputs.values()))
            values = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
            return [value.numpy() for value in values]
        except (RuntimeError, ValueError, TypeError) as exc:  # TVM's own errors are these.
            raise PackageError(
                f"{self._source} can't run the sample: {first_line(exc)}; give its inputs in the library's order, with "
                "its datatypes and shapes"
            ) from exc


def _load(source: Path) -> _Library:
    import tvm
    from tvm.relax import VirtualMachine

    try:
        machine = VirtualMachine(tvm.runtime.load_module(str(source)), tvm.cpu(), memory_cfg="naive")
        return _Library(source, machine["main"], int(machine.module["get_function_arity"]("main")))
    except (RuntimeError, AttributeError, ValueError, OSError) as exc:
        raise PackageError(
            f"TVM can't load {source}: {first_line(exc)}; it must be built for this machine, by "
            "tvm.relax.build(…).export_library(…)"
        ) from exc


def _read(sample: Path) -> Tensors:
    try:
        if sample.suffix == ".npz":
            with np.load(sample, allow_pickle=False) as archive:
                return {name: np.ascontiguousarray(archive[name]) for name in archive.files}
        document = msgspec.json.decode(sample.read_bytes(), type=dict[str, Any])
        return {name: as_array(value, _datatype_in(value), name) for name, value in document.items()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError, HeadraceError) as exc:
        raise PackageError(f"the sample {sample} can't be read: {exc}; make it with numpy.savez") from exc


def _datatype_in(value: object) -> str:
    """Return the datatype of numbers in JSON, which tells only whole ones from others."""
    return "INT64" if np.asarray(value).dtype.kind in "iu" else "FP32"


def _rows_are_free(run: _Library, inputs: Tensors, outputs: Sequence[Array]) -> bool:
    """Return whether twice the sample's rows run too, and give twice the rows."""
    if any(array.ndim == 0 for array in (*inputs.values(), *outputs)):
        return False
    try:
        twice = run({name: np.concatenate([array, array]) for name, array in inputs.items()})
    except PackageError:
        return False
    return all(two.shape[:1] == (2 * one.shape[0],) for one, two in zip(outputs, twice, strict=True))


def _tensor(name: str, array: Array, *, free: bool) -> DeclaredTensor:
    dims = (None, *array.shape[1:]) if free else array.shape
    return DeclaredTensor(name=name, datatype=datatype_of(array.dtype), dims=tuple(dims))
