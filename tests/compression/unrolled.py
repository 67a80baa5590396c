"""Graphs in which many nodes read one weight, as an exporter unrolls a recurrence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.compression.onnx_models import random

from headrace.contracts import ModelPackage
from headrace.lifecycle.packages.adding import describe

STEPS = 40
WIDTH = 96


def unrolled(operator: str) -> onnx.ModelProto:
    """Make a graph of STEPS nodes of an operator with one weight; `Transposed` turns the weight anew in each step."""
    shape: list[str | int | None] = ["rows", 64, 5, 5] if operator == "Conv" else ["rows", WIDTH]
    weight = random(64, 64, 3, 3, scale=0.04) if operator == "Conv" else random(WIDTH, WIDTH, scale=WIDTH**-0.5)
    bias = random(64 if operator == "Conv" else WIDTH, seed=1, scale=0.1)
    nodes: list[onnx.NodeProto] = []
    last = "x"
    for step in range(STEPS):
        name = f"step{step}"
        match operator:
            case "MatMul":
                nodes.append(helper.make_node("MatMul", [last, "w"], [f"m{step}"], name=name))
            case "Transposed":
                nodes.append(helper.make_node("Transpose", ["w"], [f"w{step}"], perm=[1, 0]))
                nodes.append(helper.make_node("MatMul", [last, f"w{step}"], [f"m{step}"], name=name))
            case "Gemm":
                nodes.append(helper.make_node("Gemm", [last, "w", "b"], [f"m{step}"], name=name, transB=1, alpha=0.5))
            case "Conv":
                nodes.append(helper.make_node("Conv", [last, "w", "b"], [f"m{step}"], name=name, pads=[1] * 4))
        nodes.append(helper.make_node("Tanh", [f"m{step}"], [f"h{step}"]))
        last = f"h{step}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    weights = [numpy_helper.from_array(weight, "w")]
    if operator in {"Gemm", "Conv"}:
        weights.append(numpy_helper.from_array(bias, "b"))
    graph = helper.make_graph(nodes, "unrolled", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def unrolled_package(operator: str, folder: Path) -> ModelPackage:
    """Make a package of such a graph."""
    onnx.save(unrolled(operator), folder / "unrolled.onnx")
    (folder / "package").mkdir()
    return describe(folder / "unrolled.onnx", folder / "package", name="unrolled")


def rows_of(operator: str) -> dict[str, np.ndarray]:
    """Make rows for it."""
    return {"x": random(48, 64, 5, 5, seed=2) if operator == "Conv" else random(48, WIDTH, seed=2)}
