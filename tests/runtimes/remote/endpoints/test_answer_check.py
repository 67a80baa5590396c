"""A server's answer is what the package says, or an error by name."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from headrace.contracts import TensorSpec
from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.endpoints.answer_check import checked

SCORES = TensorSpec(name="scores", datatype="FP32", shape=(3,))
LABEL = TensorSpec(name="label", datatype="INT64")
TEXT = TensorSpec(name="text", datatype="BYTES", shape=(-1,))


def answer(**changed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"scores": np.ones((2, 3), np.float32), "label": np.arange(2), **changed}


def test_the_outputs_of_the_package_are_taken_and_no_others() -> None:
    found = checked(answer(more=np.ones(5)), (SCORES, LABEL), 2, "allow")
    assert list(found) == ["scores", "label"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.ones((2, 3))}, "'scores' as FP64, but model.toml says FP32"),
        ({"scores": np.ones((1, 3), np.float32)}, "1 rows of 'scores' for 2 rows"),
        ({"scores": np.ones((3, 3), np.float32)}, "3 rows of 'scores' for 2 rows"),
        (
            {"scores": np.ones((2, 4), np.float32)},
            r"'scores' in the shape \[2, 4\] for 2 rows.*scores FP32 \[rows, 3\]",
        ),
        ({"scores": np.ones((), np.float32)}, r"the shape \[\]"),
        ({"label": np.arange(2)[None]}, "1 rows of 'label' for 2 rows"),
        ({"label": np.arange(4).reshape(2, 2)}, r"the shape \[2, 2\]"),
        ({"label": np.arange(2, dtype=np.int32)}, "'label' as INT32"),
    ],
)
def test_another_answer_is_an_error_that_names_the_output(changed: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(BadAnswer, match=message):
        checked(answer(**changed), (SCORES, LABEL), 2, "allow")


def test_a_missing_output_is_named_with_those_that_came() -> None:
    with pytest.raises(BadAnswer, match="no output 'label'; its outputs are: 'scores', 'x'"):
        checked({"scores": np.ones((2, 3), np.float32), "x": np.ones(2)}, (SCORES, LABEL), 2, "allow")
    with pytest.raises(BadAnswer, match="its outputs are: none"):
        checked({}, (LABEL,), 2, "allow")


def test_a_column_is_a_row_of_one_value() -> None:
    assert checked({"label": np.arange(2)[:, None]}, (LABEL,), 2, "allow")["label"].shape == (2,)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_where_the_package_refuses_it(dtype: DTypeLike, value: float) -> None:
    from headrace.contracts.tensors.datatypes import datatype_of

    array = np.full((2, 3), value, np.float32).astype(dtype)
    spec = TensorSpec(name="scores", datatype=datatype_of(array.dtype), shape=(3,))
    assert checked({"scores": array}, (spec,), 2, "allow")["scores"] is array
    with pytest.raises(BadAnswer, match="NaN or infinity in 'scores'"):
        checked({"scores": array}, (spec,), 2, "refuse")


def test_texts_have_rows_too() -> None:
    texts = np.array([[b"a", b"b"]], object)
    assert checked({"text": texts}, (TEXT,), 1, "refuse")["text"] is texts
    with pytest.raises(BadAnswer, match="1 rows of 'text' for 2 rows"):
        checked({"text": texts}, (TEXT,), 2, "refuse")
