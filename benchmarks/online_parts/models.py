"""The two models of the benchmark, and the requests both sides score: fixed weights, fixed rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Distinct requests; request i is row i modulo this. Enough that no cache of ours or theirs can help.
DISTINCT_ROWS = 4096

#: Threads of every ONNX Runtime session, on both sides.
THREADS = 1


@dataclass(frozen=True)
class BenchModel:
    """One model: its input's name and shape (without rows), and the usual largest batch of its package."""

    name: str
    input: str
    shape: tuple[int, ...]
    max_rows: int

    def rows(self) -> NDArray[np.float32]:
        """Make the distinct request rows, the same in every process."""
        count = DISTINCT_ROWS if len(self.shape) == 1 else 64
        return np.random.default_rng(7).standard_normal((count, *self.shape), dtype=np.float32)


#: 64 → 256 → 10: so cheap that what is measured is the way of a request, not the model.
MLP = BenchModel("mlp", "x", (64,), 64)

#: Six 3×3 convolutions on 3×32×32, about 5 ms a row on one core: what is measured is how full the batches are.
CNN = BenchModel("cnn", "image", (3, 32, 32), 16)

#: Packages that are written: the same MLP with two batch sizes, under one name and so one queue, in folders apart.
PACKAGES = ((MLP, 64), (MLP, 256), (CNN, 16))


def mlp_file() -> bytes:
    """Build the MLP as an ONNX file."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(1)
    sizes = {"w1": (64, 256), "b1": (256,), "w2": (256, 10), "b2": (10,)}
    weights = [numpy_helper.from_array(_normal(rng, shape), name) for name, shape in sizes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"]),
    ]
    return _file(MLP, nodes, weights)


def cnn_file() -> bytes:
    """Build the CNN as an ONNX file."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(2)
    nodes, weights, last, channels = [], [], CNN.input, 3
    for index, (width, stride) in enumerate([(64, 1), (128, 1), (128, 1), (128, 1), (128, 1), (128, 2)]):
        weights.append(numpy_helper.from_array(_normal(rng, (width, channels, 3, 3)), f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1], strides=[stride, stride])
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last, channels = f"r{index}", width
    weights.append(numpy_helper.from_array(_normal(rng, (channels, 10)), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    return _file(CNN, nodes, weights)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
    scale = np.float32(np.sqrt(2 / fan_in))
    return rng.standard_normal(shape, dtype=np.float32) * scale


def _file(model: BenchModel, nodes: list[Any], weights: list[Any]) -> bytes:
    from onnx import TensorProto, checker, helper

    graph = helper.make_graph(
        nodes,
        model.name,
        [helper.make_tensor_value_info(model.input, TensorProto.FLOAT, ["rows", *model.shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 10])],
        weights,
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(built)
    return bytes(built.SerializeToString())


def write_models(root: Path) -> None:
    """Write the packages, `ROOT/models-MAX_ROWS/NAME/1/`; the rival reads the same model files."""
    import tomli_w

    files = {MLP: mlp_file(), CNN: cnn_file()}
    for model, max_rows in PACKAGES:
        content, folder = files[model], models_folder(root, max_rows) / model.name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
        manifest = {
            "name": model.name,
            "version": "1",
            "runtime": "onnxruntime",
            "file": "model.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "inputs": [{"name": model.input, "datatype": "FP32", "shape": list(model.shape)}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [10]}],
            "batching": {"max_rows": max_rows},
        }
        (folder / "model.toml").write_text(tomli_w.dumps(manifest))


def models_folder(root: Path, max_rows: int) -> Path:
    """Give the models folder that holds the packages of one batch size."""
    return root / f"models-{max_rows}"


def model_file(root: Path, model: BenchModel) -> Path:
    """Give the ONNX file that `write_models` wrote."""
    return models_folder(root, model.max_rows) / model.name / "1" / "model.onnx"


def open_session(file: Path) -> Any:
    """Open an ONNX Runtime session with `THREADS` threads on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
