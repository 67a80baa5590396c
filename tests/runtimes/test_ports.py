"""Matching the inputs and outputs of a file with those of a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.package.manifest import Constant, Manifest
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.runtimes.local.ports import ElseBy, Feed, Port, match_ports

F4, I8 = np.dtype("f4"), np.dtype("i8")


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (4,)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def matched(
    specs: Sequence[TensorSpec],
    ports: Sequence[Port],
    else_by: ElseBy,
    kind: Literal["input", "output"] = "output",
    constants: tuple[Constant, ...] = (),
) -> list[int]:
    manifest = Manifest(
        name="m", version="1", runtime="r", file="f", sha256="0", inputs=(), outputs=(), constants=constants
    )
    package = ModelPackage(folder=Path("m"), manifest=manifest)
    return match_ports(package, kind, specs, ports, else_by=else_by)


@pytest.mark.parametrize("else_by", ["nothing", "order", "datatype and shape"])
def test_names_decide_and_a_file_may_have_outputs_that_the_package_leaves_out(else_by: ElseBy) -> None:
    ports = [Port("c", F4, (-1, 4)), Port("a", F4, (-1, 4)), Port("b", F4, (-1, 4))]
    assert matched([spec("a"), spec("c")], ports, else_by) == [1, 0]


def test_without_names_the_order_decides_where_the_format_has_one() -> None:
    ports = [Port("#0", F4, (-1, 4)), Port("#1", F4, (-1, 4))]
    assert matched([spec("a"), spec("b")], ports, "order") == [0, 1]


def test_without_names_datatype_and_shape_decide_if_they_leave_one_way() -> None:
    ports = [Port("p", F4, (-1, 4)), Port("q", I8, (-1,)), Port("r", F4, (-1, 9))]
    specs = [spec("a", "INT64", ()), spec("b", shape=(9,)), spec("c")]
    assert matched(specs, ports, "datatype and shape") == [1, 2, 0]


def test_a_choice_that_another_spec_decides_is_no_guess() -> None:
    ports = [Port("p", F4, None), Port("q", F4, (-1, 9))]
    assert matched([spec("a", shape=(9,)), spec("b", shape=(4,))], ports, "datatype and shape") == [1, 0]


def test_a_circle_of_three_is_a_guess_too() -> None:
    ports = [Port("p", F4, None), Port("q", F4, None), Port("r", F4, None)]
    with pytest.raises(PackageError, match=r"outputs p, q, r, and model\.toml lists a, b, c: .* which is which"):
        matched([spec("a"), spec("b"), spec("c")], ports, "datatype and shape")


def test_constants_have_no_place_in_the_order_of_inputs() -> None:
    k = Constant(name="k", datatype="FP32", value=[1.0, 2.0, 3.0, 4.0])
    ports = [Port("args_0", F4, (4,)), Port("args_1", F4, (-1, 4))]
    file_specs = [spec("x"), TensorSpec(name="k", datatype="FP32", shape=(4,), per_request=True)]
    assert matched(file_specs, ports, "order", "input", (k,)) == [1, 0]


@pytest.mark.parametrize("else_by", ["nothing", "order", "datatype and shape"])
def test_names_that_agree_in_part_are_an_error(else_by: ElseBy) -> None:
    ports = [Port("a", F4, (-1, 4)), Port("z", F4, (-1, 4))]
    with pytest.raises(PackageError, match=r"has the outputs a, z, but model\.toml lists a, b"):
        matched([spec("a"), spec("b")], ports, else_by)


@pytest.mark.parametrize("else_by", ["order", "datatype and shape"])
def test_what_fits_in_no_way_is_said_of_the_first_that_does_not(else_by: ElseBy) -> None:
    ports = [Port("p", F4, (-1, 4)), Port("q", F4, (-1, 9))]
    with pytest.raises(PackageError, match=r"has output 'b' of shape \[-1, 9\], but model\.toml says \[-1, 5\]"):
        matched([spec("a"), spec("b", shape=(5,))], ports, else_by)


def test_a_tensor_of_any_shape_fits_every_shape() -> None:
    anything = TensorSpec(name="a", datatype="FP32", per_request=True, any_shape=True)
    assert matched([anything], [Port("a", F4, (3, 4, 5))], "nothing") == [0]
    feed = Feed(Signature(inputs=(anything,), outputs=()))
    for shape in ((), (2,), (1, 2, 3)):
        assert feed({"a": np.ones(shape, np.float32)})[0].shape == shape
