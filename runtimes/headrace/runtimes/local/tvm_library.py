"""TVM (experimental): libraries that `tvm.relax.build(…).export_library` wrote: native code, which runs when loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm.relax import VirtualMachine

from headrace.contracts import ConfigurationError, ModelPackage, PackageError
from headrace.contracts.formatting import first_line
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.local.devices import split_device
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.ports import Port, match_ports, refuse_datatypes
from headrace.runtimes.local.positional import PositionalModel

#: The function that a conversion leaves in the library.
_ENTRY: Final = "main"

#: TVM's word for "the fast cores"; it takes no more threads than there are of them.
_FAST_CORES: Final = 1


class TvmRuntime:
    """Loads libraries with a function `main`: the package's inputs in their order, a tuple of its outputs back."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`, `cuda` or `cuda:N`. threads: of all models in this process.

        Raises ConfigurationError when the device is absent.
        """
        kind, index = split_device(device, ("cpu", "cuda"), ("cuda",))
        self._device = tvm.device(kind, int(index or 0))
        if not self._device.exist:
            raise ConfigurationError(
                f"device {device!r} is not here: this build of TVM finds none; install one that is built for it, "
                "or use --device cpu"
            )
        self._threads = threads

    def load(self, package: ModelPackage) -> LoadedModel:
        """Load a package's library. Raises PackageError naming the cause."""
        refuse_datatypes(package, "TVM")
        if self._threads:
            tvm.get_global_func("runtime.config_threadpool")(_FAST_CORES, self._threads)
        try:
            library = tvm.runtime.load_module(str(package.file))
            # The pooled allocator keeps memory for every number of rows that it has seen, and is no faster.
            machine = VirtualMachine(library, self._device, memory_cfg="naive")
            model = TvmModel(package, machine, self._device)
        except (RuntimeError, AttributeError, ValueError, OSError) as exc:
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise PackageError(f"{package.file} can't be loaded by TVM: {first_line(exc)}") from exc
        sizes = package.manifest.batching.row_sizes
        if not any(spec.varies for spec in package.manifest.inputs):
            _try_out(package, model, sizes[0] if sizes else 1)
        return model


def _try_out(package: ModelPackage, model: TvmModel, rows: int) -> None:
    """Run rows of zeros: a library tells nothing of its outputs. Raises PackageError when they aren't the package's."""
    signature = package.manifest.file_signature
    zeros = {spec.name: np.zeros(spec.whole_shape(rows), dtype_of(spec.datatype)) for spec in signature.inputs}
    try:
        values = list(model.infer(zeros).values())
    except (RuntimeError, ValueError, TypeError) as exc:  # TVM's own errors are these.
        names = ", ".join(spec.name for spec in signature.outputs)
        raise PackageError(f"{package.file} can't run {rows} rows and give {names}: {first_line(exc)}") from exc
    ports = [Port(spec.name, value.dtype, value.shape) for spec, value in zip(signature.outputs, values, strict=True)]
    match_ports(package, "output", signature.outputs, ports, else_by="order")


class TvmModel(PositionalModel):
    """One virtual machine of a library."""

    def __init__(self, package: ModelPackage, machine: VirtualMachine, device: Any) -> None:
        """Compare the number of inputs with the package's. Raises PackageError; AttributeError without `main`."""
        super().__init__(package)
        if package.manifest.constants:
            raise PackageError(
                f"{package.folder} sets inputs, but a library of TVM knows its inputs by their order only, in which "
                "constants have no place; leave them out (--set), and let requests hold these inputs"
            )
        wanted, found = len(package.manifest.inputs), machine.module["get_function_arity"](_ENTRY)
        if wanted != found:
            raise PackageError(f"{package.file} takes {found} inputs, but model.toml lists {wanted}")
        self._main: Any = machine[_ENTRY]
        self._machine: VirtualMachine | None = machine
        self._device = device
        listed = [spec.name for spec in package.manifest.outputs]
        self._count = len(listed)
        self._picks = [listed.index(name) for name, _ in self._outputs]

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[np.generic]]:
        result = self._main(*(tvm.runtime.tensor(array, self._device) for array in arrays))
        values = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        if len(values) != self._count:
            raise ValueError(f"the library gives {len(values)} outputs, not {self._count}")
        # numpy() copies.
        return [values[pick].numpy() for pick in self._picks]

    def _free(self) -> None:
        self._main = self._machine = None
