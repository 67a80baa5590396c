"""The inputs of a search: the model (an ONNX file, a package or a torch network), and its data."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.compression.data.dataset import Dataset, Splits, split
from headrace.compression.data.loading import infer_inputs, read_dataset
from headrace.compression.data.row_layout import check_compressible
from headrace.compression.errors import CompressionError
from headrace.compression.evaluation.prediction import predict
from headrace.compression.export.parity import check_parity
from headrace.compression.recipes.runner import Source
from headrace.compression.steps import StepContext
from headrace.contracts import ModelDirectory, ModelPackage, Tensors, TensorSpec, read_package
from headrace.contracts.package.manifest import MANIFEST
from headrace.lifecycle.packages.adding import describe

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: Rows that a network is tried on, and traced with.
_EXAMPLE_ROWS: Final = 8

#: Rows on which a network is compared with the package it is said to be of.
_COMPARED_ROWS: Final = 64

#: Largest difference between the two, in units of 1 + the output's largest absolute value.
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Request:
    """A user's request: the model to compress, and its data.

    model: an .onnx file, the folder of a package, a model of `models` (NAME or NAME@VERSION), or a reference
    `module:factory` to a torch network. data: rows to train, calibrate and choose with; test: for the final figures, or
    a part of data. label: the column of labels. network: a reference to the torch network that the package was made of.
    name: of the model, for files and networks. outputs: names of a network's outputs. labels: class names.
    """

    model: str
    data: Path
    test: Path | None = None
    label: str | None = None
    network: str = ""
    name: str = ""
    outputs: Sequence[str] = ()
    labels: Sequence[str] = ()


def open_source(
    request: Request, models: ModelDirectory, folder: Path, *, seed: int, threads: int
) -> tuple[Source, Splits]:
    """Read model and data.

    folder: where the package of a file or a network is made. Raises PackageError, DataError and CompressionError, each
    naming the fault.
    """
    if _is_reference(request.model):
        if request.network:
            raise CompressionError(f"{request.model} is a torch network already; leave --network out")
        return _from_network(request, folder, seed=seed, threads=threads)
    package = _find_package(request, models, folder)
    specs, names = package.manifest.inputs, package.manifest.labels
    check_compressible(package)
    data = _read(request, specs, names, seed=seed)
    network = _network_of(request, package, data) if request.network else None
    return Source(package, network, _origin(request, package)), data


def _is_reference(model: str) -> bool:
    return ":" in model and not Path(model).exists()


def _origin(request: Request, package: ModelPackage) -> str:
    return request.model if Path(request.model).suffix == ".onnx" else f"{package.name} {package.version}"


def _find_package(request: Request, models: ModelDirectory, folder: Path) -> ModelPackage:
    path = Path(request.model)
    if path.suffix == ".onnx" and not path.is_dir():
        original = _empty(folder / "original")
        package = describe(path, original, name=request.name or None, labels=request.labels)
        package.verify()
        return package
    if request.name or request.outputs or request.labels:
        raise CompressionError(
            f"the package {request.model} has names of its own; --name, --outputs and --labels are for ONNX files and "
            "networks"
        )
    if (path / MANIFEST).is_file():
        package = read_package(path)
    else:
        name, _, version = request.model.partition("@")
        package = models.get(name, version)
    package.verify()
    return package


def _read(request: Request, specs: Sequence[TensorSpec], names: Sequence[str], *, seed: int) -> Splits:
    data = read_dataset(request.data, specs, request.label, names=names)
    test = read_dataset(request.test, specs, request.label, names=names) if request.test else None
    return split(data, seed=seed, test=test)


def _from_network(request: Request, folder: Path, *, seed: int, threads: int) -> tuple[Source, Splits]:
    from headrace.compression.export.onnx import OnnxExport
    from headrace.compression.networks.loading import load_network

    data = _read(request, infer_inputs(request.data, request.label), request.labels, seed=seed)
    network = load_network(request.model, example=_example(data.train), outputs=request.outputs, name=request.name)
    network = dataclasses.replace(network, labels=tuple(request.labels))
    if set(network.example) != set(data.train.inputs):
        raise CompressionError(
            f"{request.model} takes {', '.join(network.example)}, but the data has {', '.join(data.train.inputs)}"
        )
    context = StepContext(_empty(folder / "original"), data, seed=seed, threads=threads)
    return Source(OnnxExport().export(network, context), network, request.model), data


def _network_of(request: Request, package: ModelPackage, data: Splits) -> Network:
    """Load the torch network that a package was made of, and make sure that it is that one."""
    from headrace.compression.networks.loading import load_network

    manifest = package.manifest
    if not manifest.signature.has_rows_first or manifest.constants:
        raise CompressionError(
            f"{package.name} {package.version} has rows at another axis, or inputs without rows, which networks here "
            "can't have; leave --network out"
        )
    network = load_network(
        request.network,
        example=_example(data.train),
        outputs=[spec.name for spec in manifest.outputs],
        name=package.name,
        shapes=[spec.shape for spec in manifest.inputs],
    )
    rows = data.selection.take(slice(0, _COMPARED_ROWS))
    expected = predict(package, rows, threads=1)
    check_parity(expected, network.infer(rows.inputs), _TOLERANCE, f"the network {request.network}")
    return dataclasses.replace(
        network,
        labels=manifest.labels,
        batching=manifest.batching,
        store=manifest.store,
        allow_nan=all(spec.allow_nan for spec in manifest.inputs),
    )


def _example(rows: Dataset) -> Tensors:
    return rows.take(np.arange(min(_EXAMPLE_ROWS, len(rows)))).inputs


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
