"""The contract of a runtime: load a package on a device, infer a dict of arrays, close.

Runtimes are plug-ins of the entry point group `headrace.runtimes`; the name there is the `runtime` of `model.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from headrace.contracts.errors import ConfigurationError, PackageError
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.problem import Problem
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP: Final = "headrace.runtimes"

#: Runtime → extra of headrace that brings its library.
_EXTRAS: Final = {
    "onnxruntime": "worker",
    "torch": "torch",
    "openvino": "openvino",
    "litert": "litert",
    "tvm": "tvm",
    "tfserving": "tfserving",
    "oip": "oip",
}


class TransientFailure(Exception):
    """A run or a loading failed for a reason that may pass, such as a lost device: it is tried again later."""


class Unavailable(TransientFailure):
    """The server of a model is away or busy: no request is to blame, so waiting for it counts as no retry.

    retry_after_s: when to try again; 0 leaves it to the caller.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        """message: for the log."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutOfMemory(TransientFailure):
    """A run needed more memory than the device has: smaller batches are tried. MemoryError means the same."""


class LoadedModel(Protocol):
    """A model that is ready to run. One executor owns it and runs one batch at a time; see `ConcurrentModel`."""

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch.

        inputs: as the package's `file_signature` says, constants included, all with the same number of rows, which is
        one of `row_sizes` where the package has them. Optional inputs may be absent.
        Returns every output of the signature. Any exception means that the batch failed; TransientFailure,
        that the same batch may succeed later.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; it is not used afterwards."""
        ...


class ConcurrentModel(LoadedModel, Protocol):
    """A model that takes several batches at once, such as one on a remote server; its `infer` is thread-safe."""

    @property
    def max_in_flight(self) -> int:
        """The most batches that may run at the same time; it may change."""
        ...


def is_concurrent(model: LoadedModel) -> bool:
    """Return whether a model is a `ConcurrentModel`, whose batches run on threads of their own."""
    return hasattr(model, "max_in_flight")


def max_in_flight(model: LoadedModel) -> int:
    """Return how many batches a model may run at the same time: 1 unless it is a `ConcurrentModel`."""
    declared: int = getattr(model, "max_in_flight", 1)
    return max(declared, 1)


def problem_of(model: LoadedModel) -> Problem | None:
    """Return why a model gives no answers at present: its attribute `problem`, which those on servers have."""
    found: Problem | None = getattr(model, "problem", None)
    return found


class Computed(NamedTuple):
    """The outputs of a batch. version: of the model that a server answered with, "" if there is none."""

    outputs: Tensors
    version: str = ""


class TimedModel(LoadedModel, Protocol):
    """A model that keeps a deadline, and knows which version answered: `compute` takes the place of `infer`."""

    def compute(self, inputs: Tensors, deadline: float | None) -> Computed:
        """Run one batch. deadline: monotonic seconds, after which nobody waits for the outputs."""
        ...


#: Runs one batch under a deadline.
Compute: TypeAlias = Callable[[Tensors, float | None], Computed]


def compute_of(model: LoadedModel) -> Compute:
    """Return what runs a batch on any model, under a deadline where it keeps one."""
    found: Compute | None = getattr(model, "compute", None)
    return found or (lambda inputs, _: Computed(model.infer(inputs)))


def joined(axes: RowAxes, pieces: Sequence[Computed]) -> Computed:
    """Return the outputs of pieces of a batch as one. axes: of the outputs. Several versions are listed."""
    versions = dict.fromkeys(piece.version for piece in pieces if piece.version)
    return Computed(axes.join([piece.outputs for piece in pieces]), ", ".join(versions))


@runtime_checkable
class Runtime(Protocol):
    """Loads packages on one device."""

    def __init__(self, device: str, threads: int) -> None:
        """device: as in `--device`. threads: for one model; 0 leaves it to the runtime.

        Raises ConfigurationError when this machine or installation has no such device.
        """
        ...

    def load(self, package: ModelPackage) -> LoadedModel:
        """Load a package whose checksum was verified. Raises PackageError when the file is not one it can run.

        Raises TransientFailure when the device can't be used at present.
        """
        ...


def find_runtime(name: str, device: str, threads: int) -> Runtime:
    """Load the plug-in that runs packages of runtime `name`.

    Raises PackageError for a name nobody provides, ConfigurationError when its library is not installed.
    """
    # Takes longer to import than all else here, and connections to servers need none of it.
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINT_GROUP)
    try:
        entry_point = found[name]
    except KeyError:
        known = ", ".join(sorted(found.names))
        raise PackageError(f"no runtime is called {name!r}; installed are: {known}") from None
    try:
        runtime: type[Runtime] = entry_point.load()
    except ImportError as exc:
        raise ConfigurationError(_missing(name, entry_point, exc)) from exc
    return runtime(device, threads)


def _missing(name: str, entry_point: EntryPoint, exc: ImportError) -> str:
    library = exc.name or "a library"
    # A library that is there but can't be loaded, for want of a system library or its own version of another.
    state = "is not installed" if isinstance(exc, ModuleNotFoundError) else f"can't be loaded ({exc})"
    if name in _EXTRAS:
        remedy = f'pip install "headrace[{_EXTRAS[name]}]"'
    else:
        remedy = f"install what {entry_point.dist.name if entry_point.dist else entry_point.value} needs"
    return f"runtime {name!r} needs {library}, which {state}; {remedy}"
