"""Networks by reference: what is found, how inputs and outputs are named, and how mistakes are told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.compression.errors import CompressionError, DataError, MissingLibrary
from headrace.compression.networks.loading import load_network

EXAMPLE = {"left": np.ones((4, 3), np.float32), "right": np.full((4, 3), 2, np.float32)}

CODE = """
import torch
from torch import nn

class Difference(nn.Module):
    def forward(self, right, left):
        return left - right, left * 1

class Named(Difference):
    def forward(self, left, right):
        return {"sum": left + right, "first": left[:, 0]}

class Optional(Difference):
    def forward(self, left, mask=None, right=None):
        return left - right

class Positions(Difference):
    def forward(self, a, b):
        return a - b

class Three(Difference):
    def forward(self, left, right, third):
        return left

class Pooled(Difference):
    def forward(self, left, right):
        return left.mean()

class Frozen(Difference):
    def forward(self, left, right):
        return left.reshape(4, 3)

class Nested(Difference):
    def forward(self, left, right):
        return left, (right,)

class Broken(Difference):
    def forward(self, left, right):
        raise ValueError("the weights are upside down")

def not_a_module():
    return 3

def takes_arguments(width):
    return Difference()

def raises():
    raise FileNotFoundError("weights.pt")

def leaves():
    raise SystemExit(1)

constant = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The current folder, holding a module of a name of its own; gives that name."""
    name = f"networks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_module_of_the_current_folder_is_found_and_its_inputs_are_matched_by_name(project: str) -> None:
    before = list(sys.path)
    network = load_network(f"{project}:Difference", example=EXAMPLE)
    assert sys.path == before
    assert network.outputs == ("output_0", "output_1")
    assert list(network.example) == ["right", "left"]
    assert network.name == "Difference"
    assert network.origin == f"{project}:Difference"
    assert not network.module.training
    np.testing.assert_array_equal(network.infer(EXAMPLE)["output_0"], np.full((4, 3), -1, np.float32))


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "parts_of_it.py").write_text("from torch import nn\nlayer = nn.Linear(3, 2)\n")
    (tmp_path / "whole.py").write_text("from parts_of_it import layer\n\ndef make():\n    return layer\n")
    network = load_network(f"{tmp_path}/whole.py:make", example={"x": EXAMPLE["left"]}, name="mine")
    assert (network.name, network.outputs) == ("mine", ("output",))


def test_outputs_are_named_by_the_dict_or_by_the_caller(project: str) -> None:
    assert load_network(f"{project}:Named", example=EXAMPLE).outputs == ("sum", "first")
    chosen = load_network(f"{project}:Named", example=EXAMPLE, outputs=["first"])
    assert list(chosen.infer(EXAMPLE)) == ["first"]
    assert load_network(f"{project}:Difference", example=EXAMPLE, outputs=["a", "b"]).outputs == ("a", "b")


def test_a_parameter_between_may_be_left_out(project: str) -> None:
    network = load_network(f"{project}:Optional", example=EXAMPLE, shapes=[(3,), (-1,)])
    assert network.shapes == ((3,), (-1,))
    np.testing.assert_array_equal(network.infer(EXAMPLE)["output"], np.full((4, 3), -1, np.float32))


def test_inputs_that_no_parameter_names_go_by_their_order(project: str) -> None:
    np.testing.assert_array_equal(
        load_network(f"{project}:Positions", example=EXAMPLE).infer(EXAMPLE)["output"],
        np.full((4, 3), -1, np.float32),
    )


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nobody", "has no 'nobody'; it has: .*Difference"),
        ("constant", "is a int, not a factory"),
        ("not_a_module", "gave a int; it must give a torch.nn.Module"),
        ("takes_arguments", "must be callable without arguments, but missing a required argument: 'width'"),
        ("raises", "raised FileNotFoundError: weights.pt"),
        ("leaves", "raised SystemExit: 1"),
        ("Broken", r"fails on 4 of the example rows \(left float32 \[4, 3\].*ValueError: the weights are upside down"),
        ("Pooled", r"output 'output' .* has the shape \[\] for 4 rows; its first dimension must be the rows"),
        ("Frozen", "fails on 1 of the example rows"),
        ("Nested", "gives a tuple among its outputs"),
        ("Three", "needs 'third' too"),
    ],
)
def test_what_is_wrong_with_a_factory_is_told(project: str, factory: str, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        load_network(f"{project}:{factory}", example=EXAMPLE)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nothing", "is no reference to a network"),
        (":make", "is no reference to a network"),
        ("no_such_module_anywhere:make", "there is no module 'no_such_module_anywhere'"),
        ("no/such/file.py:make", "does not exist"),
    ],
)
def test_what_is_wrong_with_a_reference_is_told(reference: str, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        load_network(reference, example=EXAMPLE)


def test_a_module_that_lacks_its_own_import_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import a_library_nobody_has\n")
    with pytest.raises(CompressionError, match=r"needy.py can't be imported: .*a_library_nobody_has") as caught:
        load_network(f"{tmp_path}/needy.py:make", example=EXAMPLE)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_wrong_inputs_and_names_are_told(project: str) -> None:
    with pytest.raises(CompressionError, match=r"does not take 'middle'; its parameters are: left, right"):
        load_network(f"{project}:Named", example={**EXAMPLE, "middle": EXAMPLE["left"]})
    with pytest.raises(CompressionError, match=r"gives 2 outputs, which 'a' can't name"):
        load_network(f"{project}:Difference", example=EXAMPLE, outputs=["a"])
    with pytest.raises(DataError, match="at least one; it has"):
        load_network(f"{project}:Named", example={"left": np.ones((0, 3), np.float32)})


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingLibrary, match=r'pip install "headrace\[torch\]"'):
        load_network("module:factory", example=EXAMPLE)
