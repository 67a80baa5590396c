"""Loads a package on a device: its runtime's model, with what the package adds to it."""

from __future__ import annotations

from headrace.contracts import ModelPackage, Tensors
from headrace.runtimes.base import Computed, LoadedModel, Runtime, find_runtime
from headrace.runtimes.fixed_rows import FixedRows
from headrace.runtimes.wrapped import WrappedModel


def load_model(package: ModelPackage, device: str, threads: int) -> LoadedModel:
    """Load a package whose checksum was verified; the model takes what requests hold, in any number of rows.

    device, threads: as a `Runtime` takes them. Raises PackageError, ConfigurationError or TransientFailure.
    """
    return load_on(find_runtime(package.manifest.runtime, device, threads), package)


def load_on(runtime: Runtime, package: ModelPackage) -> LoadedModel:
    """Load a package as `load_model` does, on its runtime that was found before."""
    manifest = package.manifest
    model = runtime.load(package)
    if manifest.constants:
        model = WithConstants(model, {each.name: each.array() for each in manifest.constants})
    if manifest.batching.row_sizes:
        model = FixedRows(model, manifest.signature, sorted(manifest.batching.row_sizes))
    return model


class WithConstants(WrappedModel):
    """A model some of whose inputs are set by its package."""

    def __init__(self, model: LoadedModel, constants: Tensors) -> None:
        """constants: by the name of the input."""
        super().__init__(model)
        self._constants = constants

    def compute(self, inputs: Tensors, deadline: float | None) -> Computed:
        """Run one batch."""
        return self._compute({**inputs, **self._constants}, deadline)
