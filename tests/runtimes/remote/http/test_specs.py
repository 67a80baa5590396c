"""Signatures from what servers tell, and outputs that differ from them in dimensions of 1."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pytest

from headrace.contracts.errors import PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.encoding.specs import Described, fitted, signature_of

#: Name, datatype, shape with rows or None for one that is not known.
Tensor: TypeAlias = tuple[str, str, tuple[int, ...] | None]


def test_the_rows_are_no_part_of_the_shape() -> None:
    found = signature_of([Described("x", "FP32", (-1, 3, -1))], [Described("y", "INT64", (-1,))], "7")
    assert found.inputs == (TensorSpec(name="x", datatype="FP32", shape=(3, -1)),)
    assert found.outputs == (TensorSpec(name="y", datatype="INT64"),)
    assert (found.version, found.max_rows, found.row_sizes) == ("7", 0, ())


def test_a_fixed_number_of_rows_is_the_only_size() -> None:
    found = signature_of([Described("x", "FP32", (8, 4))], [Described("y", "FP32", (8,))])
    assert (found.max_rows, found.row_sizes) == (8, (8,))


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([("x", "FP32", ())], [], "no rows in its input 'x', a scalar"),
        ([("x", "FP32", (-1,))], [("y", "FP32", ())], "no rows in its output 'y', a scalar"),
        ([("x", "FP32", None)], [], "doesn't know the shape of input 'x'"),
        ([("x", "FP32", (-1, 4)), ("w", "FP32", (16, 4))], [], "must have the same number of rows.*x any, w 16"),
        ([("x", "FP32", (-1,))], [("y", "FP32", (1000,))], "x any, y 1000"),
        ([("x", "DT_COMPLEX64", (-1,))], [], "'DT_COMPLEX64'"),
    ],
)
def test_models_without_rows_are_refused_early(inputs: list[Tensor], outputs: list[Tensor], words: str) -> None:
    with pytest.raises(PackageError, match=words):
        signature_of([Described(*each) for each in inputs], [Described(*each) for each in outputs])


@pytest.mark.parametrize(
    ("shape", "given", "want"),
    [
        ((), (5, 1), (5,)),
        ((1,), (5,), (5, 1)),
        ((4,), (5, 1, 4), (5, 4)),
        ((4,), (5, 4, 1), (5, 4)),
        ((4, 1), (1, 5, 4), (5, 4, 1)),
        ((4,), (5, 4), (5, 4)),
        # What differs in more is for the check of answers.
        ((4,), (4, 5), (4, 5)),
        ((4,), (20,), (20,)),
        ((-1,), (5, 1, 4), (5, 1, 4)),
        ((), (4, 1), (4, 1)),
    ],
)
def test_dimensions_of_1_are_fitted(shape: tuple[int, ...], given: tuple[int, ...], want: tuple[int, ...]) -> None:
    array = np.arange(np.prod(given)).reshape(given)
    found = fitted(array, TensorSpec(name="y", datatype="INT64", shape=shape), 5)
    assert found.shape == want
    assert found.reshape(-1).tolist() == array.reshape(-1).tolist()
