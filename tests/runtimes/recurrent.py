"""A model as users bring them, for every runtime: a state with its rows at axis 1, and a factor that a request sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.runtimes.conftest import HERE, save_openvino, save_pt2, save_tvm

from headrace.contracts.package.signature import TensorSpec

WEIGHTS = (np.arange(16, dtype=np.float32) / 16).reshape(4, 4)

INPUTS = (
    TensorSpec(name="x", datatype="FP32", shape=(4,)),
    TensorSpec(name="h", datatype="FP32", shape=(2, 4), rows_at=1),
    TensorSpec(name="k", datatype="FP32", shape=(1,), per_request=True),
)
OUTPUTS = (
    TensorSpec(name="y", datatype="FP32", shape=(4,)),
    TensorSpec(name="h1", datatype="FP32", shape=(2, 4), rows_at=1),
)


def request(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng([rows, seed])
    x, h = random.normal(size=(rows, 4)), random.normal(size=(2, rows, 4))
    return {"x": x.astype(np.float32), "h": h.astype(np.float32), "k": np.array([2.5], np.float32)}


def answer(x: np.ndarray, h: np.ndarray, k: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": (h.sum(0) + x) @ WEIGHTS * k, "h1": h + x[None]}


def cut(tensors: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    """The rows from `start` to `stop`, by the axes of this model."""
    axes = {"x": 0, "y": 0, "h": 1, "h1": 1}
    return {
        name: np.take(array, range(start, stop), axes[name]) if name in axes else array
        for name, array in tensors.items()
    }


def write_onnx(folder: Path, rows: int | str = "rows") -> list[Path]:
    file = folder / "model.onnx"
    nodes = [
        helper.make_node("ReduceSum", ["h", "first"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "x"], ["both"]),
        helper.make_node("MatMul", ["both", "w"], ["product"]),
        helper.make_node("Mul", ["product", "k"], ["y"]),
        helper.make_node("Add", ["h", "x"], ["h1"]),
    ]
    sizes: dict[str, list[str | int | None]] = {
        "x": [rows, 4],
        "h": [2, rows, 4],
        "k": [1],
        "y": [rows, 4],
        "h1": [2, rows, 4],
    }
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()}
    constants = {"w": WEIGHTS, "first": np.array([0])}
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [values[name] for name in ("x", "h", "k")],
        [values[name] for name in ("y", "h1")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return [file]


def write_pt2(folder: Path, rows: int | str = "rows") -> list[Path]:
    import torch

    class Recurrent(torch.nn.Module):
        def forward(self, x: torch.Tensor, h: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (h.sum(0) + x) @ torch.from_numpy(WEIGHTS) * k, h + x[None]

    count = rows if isinstance(rows, int) else 3
    example = (torch.rand(count, 4), torch.rand(2, count, 4), torch.rand(1))
    free = torch.export.Dim("rows")
    shapes = ({0: free}, {1: free}, None) if rows == "rows" else None
    return [save_pt2(folder, torch.export.export(Recurrent().eval(), example, dynamic_shapes=shapes))]


def write_openvino(folder: Path, rows: int | str = "rows") -> list[Path]:
    (source,) = write_onnx(folder, rows)
    return save_openvino(folder, source)


def write_litert(folder: Path, rows: int | str = "rows") -> list[Path]:
    file = folder / "model.tflite"
    file.write_bytes((HERE / ("recurrent.tflite" if rows == "rows" else "recurrent_of_four.tflite")).read_bytes())
    return [file]


def write_tvm(folder: Path, rows: int | str = "rows") -> list[Path]:
    (source,) = write_onnx(folder, rows)
    return save_tvm(folder, source)


WRITERS = {
    "onnxruntime": write_onnx,
    "torch": write_pt2,
    "openvino": write_openvino,
    "litert": write_litert,
    "tvm": write_tvm,
}
