"""Layouts of rows: first in a dataset, elsewhere in some models; and models that no dataset suits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from headrace.compression.errors import DataError, NotApplicable
from headrace.contracts import ModelPackage, Tensors, TensorSpec, read_package
from headrace.contracts.package.manifest import write_manifest

#: Rows of one run of a model whose activations are looked at: all those of a batch are in memory at once.
RUN_ROWS: Final = 16


def as_taken(specs: Iterable[TensorSpec], rows: Tensors) -> Tensors:
    """Bring rows of a dataset into the layout of the model: views, no copies. Names not in `specs` pass through."""
    axes = {spec.name: spec.rows_at for spec in specs}
    return {name: np.moveaxis(array, 0, axes.get(name, 0)) for name, array in rows.items()}


def rows_first(specs: Iterable[TensorSpec], tensors: Tensors) -> Tensors:
    """Bring what a model takes or gives into the layout of a dataset: views, no copies."""
    axes = {spec.name: spec.rows_at for spec in specs}
    return {name: np.moveaxis(array, axes.get(name, 0), 0) for name, array in tensors.items()}


@dataclass(frozen=True)
class RowRuns:
    """Rows for runs of a model outside the runtime that serves it, some at a time.

    tensors: rows first. specs: of the inputs. run_rows: of one run. fixed: whether every run must have this number, the
    last one padded with copies of its last row.
    """

    tensors: Tensors
    specs: tuple[TensorSpec, ...]
    run_rows: int
    fixed: bool = False

    @classmethod
    def of(cls, package: ModelPackage, tensors: Tensors, most: int) -> RowRuns:
        """Cut rows as a package's model bears it. most: rows of one run."""
        batching = package.manifest.batching
        if batching.row_sizes:
            return cls(tensors, package.manifest.inputs, batching.row_sizes[-1], fixed=True)
        return cls(tensors, package.manifest.inputs, most if batching.independent_rows else 1)

    def __len__(self) -> int:
        """Count the rows."""
        return len(next(iter(self.tensors.values()), ()))

    def take(self, rows: Sequence[int]) -> RowRuns:
        """Return some of the rows."""
        return dataclasses.replace(self, tensors={name: array[list(rows)] for name, array in self.tensors.items()})

    def runs(self) -> Iterator[Tensors]:
        """Return the inputs of one run after the other, as the model takes them."""
        count = len(self)
        for start in range(0, count, self.run_rows):
            wanted = self.run_rows if self.fixed else min(self.run_rows, count - start)
            index = np.minimum(np.arange(start, start + wanted), count - 1)
            yield as_taken(self.specs, {name: array[index] for name, array in self.tensors.items()})


def without_constants(product: ModelPackage) -> ModelPackage:
    """Return a product whose file holds what its source's package set, so that its own need not."""
    if not product.manifest.constants:
        return product
    write_manifest(product.folder, msgspec.structs.replace(product.manifest, constants=()))
    return read_package(product.folder)


def check_inputs_of_rows(specs: Iterable[TensorSpec]) -> None:
    """Raise DataError for an input that rows of a file can't hold."""
    for spec in specs:
        if spec.per_request and not spec.optional:
            raise DataError(_without_rows(spec))


def check_compressible(package: ModelPackage) -> None:
    """Raise NotApplicable, before anything is tried, for a model that no recipe can treat."""
    signature = package.manifest.signature
    if all(spec.per_request for spec in signature.inputs):
        spec = signature.inputs[0]
        raise NotApplicable(
            f"{package.name} {package.version} has no rows: input {spec.name!r} {_kind(spec)}; such models can be "
            "served and profiled, but not compressed"
        )
    check = [spec for spec in signature.inputs if spec.per_request and not spec.optional]
    if check:
        raise NotApplicable(_without_rows(check[0]))
    whole = [spec.name for spec in signature.outputs if spec.per_request]
    if whole:
        raise NotApplicable(
            f"output {whole[0]!r} of {package.name} {package.version} has no rows, so that products can't be compared "
            "by rows; keep the others alone ([store] keep in its model.toml), if there are any"
        )


def _kind(spec: TensorSpec) -> str:
    return "is a sequence" if spec.sequence else "is given whole, once a request"


def _without_rows(spec: TensorSpec) -> str:
    remedy = (
        "such models can be served, but not compressed"
        if spec.sequence
        else f"set it in the package: headrace models add FILE --set {spec.name}=VALUE"
    )
    return f"input {spec.name!r} {_kind(spec)}, so that rows of a file can't hold it; {remedy}"
