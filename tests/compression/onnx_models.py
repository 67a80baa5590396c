"""Small ONNX models for tests, as packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors
from headrace.lifecycle.packages.adding import describe


def model_of(
    text: str, weights: Mapping[str, NDArray[Any]] = {}, *, opset: int = 17, domains: str = ""
) -> onnx.ModelProto:
    """Make a model of `name (inputs) => (outputs) { nodes }` in ONNX's text form."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>'
    model: onnx.ModelProto = parser.parse_model(header + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def package_of(model: onnx.ModelProto, folder: Path) -> ModelPackage:
    """Make a package of a model, in a folder of its own."""
    target = folder / "source"
    target.mkdir()
    onnx.save(model, folder / "made.onnx")
    return describe(folder / "made.onnx", target, name="made")


def context_of(folder: Path, inputs: Tensors, labels: NDArray[Any] | None = None) -> StepContext:
    """Make a context whose splits are all the same rows."""
    rows = Dataset(inputs, labels)
    return StepContext(folder / "context", Splits(rows, rows, rows, rows))


def operators_of(package: ModelPackage) -> list[str]:
    """Name the operators of a package's graph, in order; the file must be valid ONNX."""
    model = onnx.load(package.file)
    onnx.checker.check_model(model)
    return [node.op_type for node in model.graph.node]


def bytes_of(package: ModelPackage) -> dict[str, bytes]:
    """Read all files of a package."""
    return {
        str(path.relative_to(package.folder)): path.read_bytes()
        for path in sorted(package.folder.rglob("*"))
        if path.is_file()
    }


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Make normal numbers."""
    numbers: NDArray[np.float32] = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    return numbers


def answers(package: ModelPackage, inputs: Tensors) -> Tensors:
    """Run a package with the runtime that serves it."""
    from headrace.runtimes.base import find_runtime

    model = find_runtime(package.manifest.runtime, "cpu", 1).load(package)
    try:
        return model.infer(inputs)
    finally:
        model.close()
