"""The digits model behind a long chain of MatMuls that changes nothing, and a recipe that takes the chain away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.compression.digit_net import DEMO_DATA

from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage
from headrace.lifecycle.packages.registry import derive_package

WIDTH = 768
CHAIN = 3


def write_slow_digits(path: Path) -> Path:
    """The demo's model, many times as slow."""
    model = onnx.load(DEMO_DATA / "models/digits/1/model.onnx")
    wide = np.eye(64, WIDTH, dtype=np.float32)
    matrices = [wide, *[np.eye(WIDTH, dtype=np.float32)] * CHAIN, wide.T.copy()]
    nodes, last = [helper.make_node("Reshape", ["image", "flat"], ["c"])], "c"
    for at, matrix in enumerate(matrices):
        model.graph.initializer.append(numpy_helper.from_array(matrix, f"c{at}"))
        nodes.append(helper.make_node("MatMul", [last, f"c{at}"], [f"c{at}_out"]))
        last = f"c{at}_out"
    nodes.append(helper.make_node("Reshape", [last, "square"], ["image_again"]))
    for name, shape in (("flat", [-1, 64]), ("square", [-1, 1, 8, 8])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    rest = list(model.graph.node)
    for node in rest:
        node.input[:] = ["image_again" if name == "image" else name for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    onnx.save(model, path)
    return path


@dataclass(frozen=True)
class WithoutChain:
    """Takes the chain away."""

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        file = context.step_dir(self) / "model.onnx"
        file.write_bytes((DEMO_DATA / "models/digits/1/model.onnx").read_bytes())
        return derive_package(package, file.parent, [file], runtime="onnxruntime", step=step_record(self))
