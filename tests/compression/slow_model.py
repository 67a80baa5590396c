"""A made-up model with a long chain of MatMuls that changes nothing, and recipes of which it is certain what they do.

The model: x FP32 [rows, 16] → label INT64 [rows], scores FP32 [rows, 4]. Without the chain it is many times as fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headrace.compression.data.dataset import Dataset, Splits, split
from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.evaluation.metric_choice import metric_for
from headrace.compression.recipes.catalog import BLOCKS, Block
from headrace.compression.recipes.runner import Source
from headrace.compression.search.search import SearchConfig
from headrace.compression.steps import Step, StepContext, step_record
from headrace.contracts import ModelPackage
from headrace.lifecycle.packages.adding import describe
from headrace.lifecycle.packages.registry import derive_package

WIDTH = 640
CHAIN = 4


def weights() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(16, 4)).astype(np.float32)


def write_model(path: Path, *, chain: int, matrix: np.ndarray | None = None) -> Path:
    """chain: MatMuls with an identity, between two that widen and narrow; 0 leaves all of these out."""
    wide = np.eye(16, WIDTH, dtype=np.float32)
    matrices = [wide, *[np.eye(WIDTH, dtype=np.float32)] * chain, wide.T.copy()] if chain else []
    matrices.append(weights() if matrix is None else matrix)
    nodes, held, last = [], [], "x"
    for at, array in enumerate(matrices):
        held.append(numpy_helper.from_array(array, f"w{at}"))
        name = "scores" if at == len(matrices) - 1 else f"h{at}"
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [name], name=f"layer{at}"))
        last = name
    nodes.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 16])
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 4]),
    ]
    graph = helper.make_graph(nodes, "made-up", [x], outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def slow_model_rows(count: int = 400) -> Dataset:
    """Rows of which the model gets about nine of ten right."""
    random = np.random.default_rng(3)
    x = random.normal(size=(count, 16)).astype(np.float32)
    labels = (x @ weights()).argmax(axis=1)
    odd = random.random(count) < 0.1
    return Dataset({"x": x}, np.where(odd, (labels + 1) % 4, labels).astype(np.int64))


def slow_model_source(folder: Path) -> tuple[Source, Splits]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package").mkdir(exist_ok=True)
    package = describe(write_model(folder / "made-up.onnx", chain=CHAIN), folder / "package")
    return Source(package, None, "made-up.onnx"), split(slow_model_rows(), seed=0)


def quick_goal(source: Source, data: Splits, **changes: object) -> SearchConfig:
    metric = metric_for("accuracy", source.package.manifest.signature, data.test.labels)
    options = {"bound": MaxDrop.parse("0.5%"), "at_rows": 16, "row_sizes": (1, 16), "seconds": 0.1, **changes}
    return SearchConfig(metric, **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rewrite:
    """Writes the model anew. chain: as of `write_model`; sign: of the weights, -1 makes nearly every answer wrong."""

    chain: int = 0
    sign: float = 1.0

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        room = context.step_dir(self)
        file = write_model(room / "model.onnx", chain=self.chain, matrix=(self.sign * weights()).astype(np.float32))
        return derive_package(package, room, [file], runtime="onnxruntime", step=step_record(self))


@dataclass(frozen=True)
class Refuse:
    """Ends in an error. how: which."""

    how: str

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        match self.how:
            case "not applicable":
                raise NotApplicable("there is nothing to do")
            case "wordy":
                raise CompressionError("word " * 60 + "end")
            case "not installed":
                raise MissingLibrary("a stub", "openvino")
            case _:
                raise RuntimeError("a library's own bug")


@dataclass(frozen=True)
class Wait:
    """Says so, waits until its standard input ends, and then doesn't apply."""

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        (context.step_dir(self) / "half.onnx").write_bytes(b"half")
        print("waiting", flush=True)
        sys.stdin.read()
        raise NotApplicable("the wait is over")


def _block(*steps: Step) -> Block:
    def made() -> Sequence[Step]:
        return steps

    return Block("of these tests", made, "package", "onnxruntime")


STUBS = {
    "lean": _block(Rewrite()),
    "same": _block(Rewrite(chain=CHAIN)),
    "slower": _block(Rewrite(chain=2 * CHAIN)),
    "broken": _block(Rewrite(sign=-1.0)),
    "idle": _block(Refuse("not applicable")),
    "absent": _block(Refuse("not installed")),
    "wordy": _block(Refuse("wordy")),
    "buggy": _block(Refuse("buggy")),
    "waits": _block(Wait()),
}


def with_stubs() -> dict[str, Block]:
    return {**BLOCKS, **STUBS}
