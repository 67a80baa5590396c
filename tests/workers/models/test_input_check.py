from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.contracts import Signature, SignatureMismatch, Tensors, TensorSpec
from headrace.workers.models.input_check import InputCheck

Y = TensorSpec(name="y", datatype="FP32")
CASES = [
    (TensorSpec(name="a", datatype="FP32", shape=(2,), allow_nan=False), TensorSpec(name="b", datatype="INT64")),
    (TensorSpec(name="a", datatype="FP16", shape=(2, 1), allow_nan=False),),
    (TensorSpec(name="a", datatype="FP64", shape=(-1,), allow_nan=False),),
    (TensorSpec(name="a", datatype="FP32", shape=()), TensorSpec(name="b", datatype="BYTES")),
]
DTYPES = [np.dtype(code) for code in ("<f4", "<i8", "<f2", "<f8", ">f4", "O")]


def outcome(check: Callable[[dict[str, Any]], Tensors], inputs: dict[str, Any]) -> object:
    try:
        arrays = check(inputs)
    except SignatureMismatch as exc:
        return exc.message
    return {name: (array.dtype, array.shape, array.tolist()) for name, array in arrays.items()}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 2), max_size=3)))
    if dtype.kind == "O":
        return np.full(shape, b"x", dtype)
    return draw(hnp.arrays(dtype, shape))


@pytest.mark.parametrize("specs", CASES)
@given(inputs=st.dictionaries(st.sampled_from("abc"), arrays(), max_size=3))
def test_the_prepared_check_says_the_same_as_the_signature(
    specs: tuple[TensorSpec, ...], inputs: dict[str, np.ndarray]
) -> None:
    signature = Signature(inputs=specs, outputs=(Y,))
    assert str(outcome(InputCheck(signature), inputs)) == str(outcome(signature.check_inputs, inputs))
