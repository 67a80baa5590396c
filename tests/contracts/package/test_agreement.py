"""What counts as the same answer of a model, and what doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.contracts.package.agreement import TOLERANCES, difference
from headrace.contracts.tensors.datatypes import DTYPES

F = np.float32


@given(
    hnp.arrays(
        st.sampled_from([np.bool_, np.int64, np.uint8, np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_every_answer_agrees_with_itself(array: np.ndarray) -> None:
    assert difference({"y": array}, {"y": array.copy()}) == ""


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "BF16"])
def test_floats_may_differ_by_their_datatype_s_tolerance_of_the_largest_value(datatype: str) -> None:
    def answer(small: float) -> dict[str, np.ndarray]:
        return {"y": np.array([100.0, small]).astype(DTYPES[datatype])}

    assert difference(answer(1), answer(1 + 90 * TOLERANCES[datatype])) == ""
    assert "its values being up to 100" in difference(answer(1), answer(1 + 150 * TOLERANCES[datatype]))


@pytest.mark.parametrize(
    ("want", "have", "words"),
    [
        (np.zeros((1, 2), F), np.zeros((1, 3), F), "has the shape [1, 3] instead of [1, 2]"),
        (np.array([1.0, np.nan], F), np.array([1.0, 2.0], F), "NaN or infinity is elsewhere"),
        (np.array([1.0, 2.0], F), np.array([1.0, np.nan], F), "NaN or infinity is elsewhere"),
        (np.array([np.inf], F), np.array([-np.inf], F), "NaN or infinity is elsewhere"),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), "25% of its values are others"),
        (np.array([True]), np.array([False]), "100% of its values are others"),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), "50% of its values are others"),
        (np.array([1e-6], F), np.array([2e-3], F), "differs: by 0.002"),
    ],
)
def test_what_differs_is_named(want: np.ndarray, have: np.ndarray, words: str) -> None:
    found = difference({"same": np.ones(2, F), "y": want}, {"same": np.ones(2, F), "y": have})
    assert found.startswith("output 'y'")
    assert words in found


def test_nan_and_infinity_in_their_places_agree() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1.0], F)
    assert difference({"y": array}, {"y": array.copy()}) == ""
    assert difference({"y": array[:1]}, {"y": array[:1].copy()}) == ""


def test_a_label_may_flip_only_where_its_scores_tie() -> None:
    def outputs(label: int, *scores: float) -> dict[str, np.ndarray]:
        return {"label": np.array([label]), "scores": np.array([scores], F)}

    assert difference(outputs(0, 0.5, 0.5000001, -1), outputs(1, 0.5, 0.5000001, -1)) != ""  # 0 is no argmax
    assert difference(outputs(1, 0.5, 0.5000001, -1), outputs(0, 0.5000001, 0.5, -1)) == ""
    assert "output 'label'" in difference(outputs(1, 0.5, 0.6, -1), outputs(0, 0.5, 0.6, -1))
    assert "output 'label'" in difference(outputs(1, 0.5, 0.5000001, -1), outputs(2, 0.5, 0.5000001, -1))
    assert "output 'label'" in difference(outputs(1, 0.5, 0.5000001, -1), outputs(7, 0.5, 0.5000001, -1))
