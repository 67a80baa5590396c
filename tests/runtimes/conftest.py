"""One small model in the format of every runtime, as packages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.runtimes.small_net import CLASSES, SmallNet, weights
from tests.workers import conftest as workers

from headrace.contracts import ModelPackage, read_package
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent

#: The fixture `models`: the small packages that workers serve in tests.
models = workers.models

RUNTIMES = ("onnxruntime", "torch", "openvino", "litert", "tvm")

INPUTS = (TensorSpec(name="image", datatype="FP32", shape=(1, 8, 8)),)
OUTPUTS = (
    TensorSpec(name="label", datatype="INT64"),
    TensorSpec(name="scores", datatype="FP32", shape=(CLASSES,)),
)


def package_of(folder: Path, runtime: str, file: Path, *others: Path, **changes: Any) -> ModelPackage:
    """Write a manifest beside the files of a folder."""
    fields: dict[str, Any] = {"inputs": INPUTS, "outputs": OUTPUTS, "batching": BatchingAdvice(max_rows=64)} | changes
    manifest = Manifest(
        name=folder.parent.name,
        version=folder.name,
        runtime=runtime,
        file=file.name,
        sha256=sha256_of(file),
        files={other.name: sha256_of(other) for other in others},
        **fields,
    )
    write_manifest(folder, manifest)
    return read_package(folder)


def write_onnx(folder: Path, rows: int | str = "rows") -> list[Path]:
    file = folder / "model.onnx"
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "linear.weight", "linear.bias"], ["logits"], transB=1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    constants = {**weights(), "axes": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, 1, 8, 8])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [rows]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, CLASSES]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return [file]


def write_pt2(folder: Path, rows: int | str = "rows") -> list[Path]:
    import torch

    example = torch.rand(rows if isinstance(rows, int) else 3, 1, 8, 8)
    shapes = ({0: torch.export.Dim("rows")},) if rows == "rows" else None
    program = torch.export.export(SmallNet().eval(), (example,), dynamic_shapes=shapes)
    return [save_pt2(folder, program)]


def save_pt2(folder: Path, program: torch.export.ExportedProgram) -> Path:
    import torch

    with warnings.catch_warnings():
        # torch's own use of its pytree, which it deprecated itself.
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
        torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def write_openvino(folder: Path, rows: int | str = "rows") -> list[Path]:
    (source,) = write_onnx(folder, rows)
    return save_openvino(folder, source)


def save_openvino(folder: Path, source: Path) -> list[Path]:
    """Convert an ONNX file."""
    import openvino as ov

    ov.save_model(ov.Core().read_model(source), folder / "model.xml", compress_to_fp16=False)
    return [folder / "model.xml", folder / "model.bin"]


def write_litert(folder: Path, rows: int | str = "rows") -> list[Path]:
    file = folder / "model.tflite"
    file.write_bytes((HERE / ("small_net.tflite" if rows == "rows" else "small_net_frozen.tflite")).read_bytes())
    return [file]


def write_tvm(folder: Path, rows: int | str = "rows") -> list[Path]:
    (source,) = write_onnx(folder, rows)
    return save_tvm(folder, source)


def save_tvm(folder: Path, source: Path) -> list[Path]:
    """Compile an ONNX file."""
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    # TVM logs passes that find nothing to do.
    logging.getLogger("tvm").setLevel(logging.ERROR)
    tvm.relax.build(from_onnx(onnx.load(source)), target="llvm").export_library(str(folder / "model.so"))
    return [folder / "model.so"]


WRITERS = {
    "onnxruntime": write_onnx,
    "torch": write_pt2,
    "openvino": write_openvino,
    "litert": write_litert,
    "tvm": write_tvm,
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelPackage]:
    """Return the small model's package for a runtime, made when it is first asked for."""
    made: dict[str, ModelPackage] = {}

    def get(runtime: str) -> ModelPackage:
        if runtime not in made:
            folder = tmp_path_factory.mktemp("models") / f"small-{runtime}" / "1"
            folder.mkdir(parents=True)
            made[runtime] = package_of(folder, runtime, *WRITERS[runtime](folder))
        return made[runtime]

    return get


@pytest.fixture(params=RUNTIMES)
def package(packages: Callable[[str], ModelPackage], request: pytest.FixtureRequest) -> ModelPackage:
    """The small model's package, for one runtime after the other."""
    return packages(request.param)
