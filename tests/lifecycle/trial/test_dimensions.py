"""Sizes of named dimensions, and sums of them."""

from __future__ import annotations

import pytest

from headrace.lifecycle.packages.declared import DeclaredTensor
from headrace.lifecycle.packages.trial.dimensions import is_nameless, named_dims, size_of, symbols_of


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        (7, 7),
        ("length", 16),
        ("past + length", 20),
        ("2*length", 32),
        ("2*length + past + 1", 37),
        ("floor(length/2)", None),
        ("other", None),
    ],
)
def test_sums_and_multiples_of_sizes_are_computed(dim: int | str, size: int | None) -> None:
    assert size_of(dim, {"length": 16, "past": 4}) == size


def test_symbols_within_sums_are_found_once() -> None:
    assert symbols_of([("a", "a + b", 3), ("2*c",)]) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["", "?", "None", "unk__17", "x[1]", "dynamic"])
def test_names_that_nobody_chose_say_nothing(name: str) -> None:
    assert is_nameless(name)


@pytest.mark.parametrize("name", ["batch", "n", "length", "s0"])
def test_names_that_somebody_chose_are_names(name: str) -> None:
    assert not is_nameless(name)


def test_a_dimension_without_a_name_gets_one_of_its_own() -> None:
    tensor = DeclaredTensor(name="x", datatype="FP32", dims=("batch", None, "unk__3", 4))
    assert named_dims(tensor) == ("batch", "x[1]", "x[2]", 4)


def test_a_sequence_has_its_length_first() -> None:
    tensor = DeclaredTensor(name="x", datatype="FP32", dims=(3,), sequence=True)
    assert named_dims(tensor) == ("x[0]", 3)
