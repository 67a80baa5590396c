"""torch: how names go with places, int8 operators, threads, errors that may pass."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.runtimes.conftest import package_of, save_pt2
from torch import Tensor, nn

from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.base import LoadedModel, OutOfMemory, TransientFailure
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.torch_program import TorchRuntime

X, Y = np.full((2, 3), 5, np.float32), np.full((2, 3), 2, np.float32)


class Difference(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"sum": x + y, "difference": x - y}


class Lookup(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.table.expand(x.shape[0], 3)


def load(
    tmp_path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    **named: Tensor,
) -> LoadedModel:
    folder = tmp_path / "model" / "1"
    folder.mkdir(parents=True)
    rows = torch.export.Dim("rows")
    shapes = tuple({0: rows} for _ in example) if example else {name: {0: rows} for name in named}
    file = save_pt2(folder, torch.export.export(module.eval(), example, named, dynamic_shapes=shapes))

    def specs(names: Sequence[str]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, datatype="FP32", shape=(3,)) for name in names)

    return TorchRuntime("cpu", 1).load(package_of(folder, "torch", file, inputs=specs(inputs), outputs=specs(outputs)))


def two() -> tuple[Tensor, Tensor]:
    return torch.ones(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize("inputs", [["x", "y"], ["y", "x"]])
def test_inputs_go_by_their_names_where_these_agree(tmp_path: Path, inputs: list[str]) -> None:
    model = load(tmp_path, Difference(), two(), inputs, ["difference", "sum"])
    outputs = model.infer({"x": X, "y": Y})
    assert {name: array[0, 0] for name, array in outputs.items()} == {"difference": 3, "sum": 7}


def test_inputs_go_by_their_order_where_no_name_agrees(tmp_path: Path) -> None:
    model = load(tmp_path, Difference(), two(), ["a", "b"], ["difference"])
    assert model.infer({"b": Y, "a": X})["difference"][0, 0] == 3


def test_a_program_may_take_its_inputs_by_keyword(tmp_path: Path) -> None:
    # Two tensors: of one that is given twice torch.export makes a program with one input.
    x, y = two()
    model = load(tmp_path, Difference(), (), ["y", "x"], ["difference"], x=x, y=y)
    assert model.infer({"x": X, "y": Y})["difference"][0, 0] == 3


def test_half_of_the_names_is_an_error_rather_than_a_guess(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"has the inputs x, y, but model\.toml lists x, z"):
        load(tmp_path, Difference(), two(), ["x", "z"], ["sum"])


def test_what_a_program_returns_unchanged_is_copied(tmp_path: Path) -> None:
    model = load(tmp_path, Lookup(), two()[:1], ["x"], ["same", "table"])
    given = X.copy()
    outputs = model.infer({"x": given})
    outputs["same"][:] = outputs["table"][:] = -1
    assert given.tolist() == X.tolist()
    assert model.infer({"x": given})["table"].tolist() == [[0, 1, 2]] * 2


def test_int8_programs_find_their_operators(tmp_path: Path) -> None:
    class Quantized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            codes = torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.5, 0, -128, 127, torch.int8)
            y: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(codes, 0.5, 0, -128, 127, torch.int8)
            return y

    # Its import registers them here, too.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    model = load(tmp_path, Quantized(), two()[:1], ["x"], ["y"])
    assert model.infer({"x": np.full((2, 3), 1.2, np.float32)})["y"].tolist() == [[1.0] * 3] * 2


def test_the_number_of_threads_holds_in_threads_that_start_later(packages: Callable[[str], ModelPackage]) -> None:
    before = torch.get_num_threads()
    try:
        TorchRuntime("cpu", 3).load(packages("torch")).close()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_too_little_memory_may_pass() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert isinstance(passing_failure(caught.value), OutOfMemory)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB", OutOfMemory),
        ("CUDA error: unspecified launch failure", TransientFailure),
        ("CUDA error: an illegal memory access was encountered", TransientFailure),
    ],
)
def test_what_torch_says_of_cuda_may_pass(text: str, kind: type[TransientFailure]) -> None:
    assert type(passing_failure(RuntimeError(text))) is kind
