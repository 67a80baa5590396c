"""Probabilities are told from logits by their range and by the sum of each row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from headrace.compression.data.probabilities import INT8_ROUNDING, are_probabilities, softmax
from headrace.compression.evaluation.metrics import Metric

shapes = st.tuples(st.integers(1, 12), st.integers(2, 20))
logits = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-30, 30)))
unit = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1)))


@given(logits)
def test_every_softmax_gives_probabilities(scores: NDArray[np.float64]) -> None:
    given = softmax(scores)
    assert are_probabilities(given)
    assert are_probabilities(given.astype(np.float32))
    assert are_probabilities(given.astype(np.float16))


@given(logits)
def test_rounding_to_int8_leaves_probabilities_what_they_are(scores: NDArray[np.float64]) -> None:
    rounded = np.round(softmax(scores) * 127) / 127
    assert are_probabilities(rounded, rounding=INT8_ROUNDING)


@given(unit)
@settings(max_examples=200)
def test_scores_within_0_and_1_are_probabilities_only_if_each_row_sums_to_1(scores: NDArray[np.float64]) -> None:
    sums = scores.sum(axis=1)
    assert are_probabilities(scores) == bool((np.abs(sums - 1) < 1e-3).all())


@given(logits, st.floats(0.01, 5))
def test_scores_outside_0_to_1_never_are_probabilities(scores: NDArray[np.float64], beyond: float) -> None:
    given = softmax(scores)
    given[0, :2] = 1 + beyond, -beyond
    assert not are_probabilities(given)


def test_one_column_is_a_probability_if_within_0_and_1() -> None:
    assert are_probabilities(np.array([[0.2], [1.0]]))
    assert not are_probabilities(np.array([[0.2], [1.5]]))


def test_rows_that_are_not_finite_are_left_out_and_none_proves_nothing() -> None:
    given = np.array([[0.25, 0.75], [np.nan, 0.5], [np.inf, 0.0]])
    assert are_probabilities(given)
    assert not are_probabilities(given[1:])
    assert not are_probabilities(given[:0])


def test_confidence_of_logits_within_0_and_1_is_their_softmax() -> None:
    metric = Metric(name="accuracy", output="scores", kind="scores", family="classes", scores="scores")
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6]], np.float32)
    found = metric.confidence({"scores": scores}, np.array([0, 1]))
    assert found is not None
    np.testing.assert_allclose(found, softmax(scores.astype(np.float64)).max(axis=1))


def test_a_compressed_models_scores_are_read_as_the_originals() -> None:
    metric = Metric(name="accuracy", output="scores", kind="scores", family="classes", scores="scores")
    original = {"scores": np.array([[0.9, 0.1]], np.float32)}
    found = metric.confidence({"scores": np.array([[0.85, 0.05]], np.float32)}, np.array([0]), original)
    assert found is not None
    np.testing.assert_allclose(found, [0.85], rtol=1e-6)
