"""Files that keep something from one run to the next: no request may see what another left behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops
from tests.runtimes.conftest import HERE, package_of, save_pt2

from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.loading import load_model

X = (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
Y = (TensorSpec(name="y", datatype="FP32", shape=(4,)),)
ONE_ROW = BatchingAdvice(max_rows=1, row_sizes=(1,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "counting" / "1"
    made.mkdir(parents=True)
    return made


def write_litert(folder: Path) -> list[Path]:
    (folder / "model.tflite").write_bytes((HERE / "counting.tflite").read_bytes())
    return [folder / "model.tflite"]


def write_openvino(folder: Path) -> list[Path]:
    x = ops.parameter([1, 4], np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    total = ops.add(
        ops.read_value(ops.constant(np.zeros((1, 4), np.float32)), "total", np.float32, [1, 4]), x, name="y"
    )
    total.output(0).get_tensor().set_names({"y"})
    ov.save_model(ov.Model([ops.result(total)], [ops.assign(total, "total")], [x], "counting"), folder / "model.xml")
    return [folder / "model.xml", folder / "model.bin"]


class Counting(torch.nn.Module):
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A view of the buffer is written to, not the buffer itself.
        self.total[0].add_(x[0])
        return self.total[0] + x * 0


def write_torch(folder: Path, *, functional: bool) -> list[Path]:
    program = torch.export.export(Counting().eval(), (torch.ones(1, 4),))
    if functional:
        with warnings.catch_warnings():
            # torch's own use of its pytree, which it deprecated itself.
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
            program = program.run_decompositions()
    return [save_pt2(folder, program)]


WRITERS: dict[str, Callable[[Path], list[Path]]] = {
    "litert": write_litert,
    "openvino": write_openvino,
    "torch": lambda folder: write_torch(folder, functional=False),
    "torch, functional": lambda folder: write_torch(folder, functional=True),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_run_starts_anew(folder: Path, kind: str) -> None:
    package = package_of(folder, kind.partition(",")[0], *WRITERS[kind](folder), inputs=X, outputs=Y, batching=ONE_ROW)
    model = load_model(package, "cpu", 1)
    for number in (1, 2, 1, 5):
        x = np.full((1, 4), number, np.float32)
        np.testing.assert_array_equal(model.infer({"x": x})["y"], x)
    model.close()


def test_an_input_that_a_program_writes_into_stays_as_it_is(folder: Path) -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mul_(2)
            return x + 1

    rows = torch.export.Dim("rows")
    program = torch.export.export(Doubling().eval(), (torch.ones(3, 4),), dynamic_shapes=({0: rows},))
    model = load_model(package_of(folder, "torch", save_pt2(folder, program), inputs=X, outputs=Y), "cpu", 1)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(model.infer({"x": x})["y"], x * 2 + 1)
    np.testing.assert_array_equal(x, np.ones((2, 4)))
