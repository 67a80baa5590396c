"""Metrics are those of scikit-learn, and one that doesn't fit a model's outputs is refused with those that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from headrace.compression.errors import DataError
from headrace.compression.evaluation.bootstrap import interval, resample
from headrace.compression.evaluation.metric_choice import METRICS, kind_of, metric_for
from headrace.compression.evaluation.metrics import Metric
from headrace.contracts import Signature, Tensors, TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES

SPECS = {
    "label": TensorSpec(name="label", datatype="INT64"),
    "flag": TensorSpec(name="flag", datatype="BOOL", shape=(1,)),
    "species": TensorSpec(name="species", datatype="BYTES"),
    "scores": TensorSpec(name="scores", datatype="FP32", shape=(3,)),
    "two": TensorSpec(name="two", datatype="FP32", shape=(2,)),
    "score": TensorSpec(name="score", datatype="FP32", shape=(1,)),
    "price": TensorSpec(name="price", datatype="FP64"),
    "tokens": TensorSpec(name="tokens", datatype="FP16", shape=(-1, 8)),
    "embedding": TensorSpec(name="embedding", datatype="BF16", shape=(384,)),
    "ids": TensorSpec(name="ids", datatype="INT32", shape=(5,)),
}
CLASSES = np.array([0, 1, 2, 1])
BINARY = np.array([0, 1, 1, 0])
FLOATS = np.array([0.5, 1, 2, 3])
NAMES = ("ant", "bee", "cow")

classes = st.integers(2, 60).flatmap(
    lambda rows: st.tuples(
        arrays(np.int64, rows, elements=st.integers(0, 4)), arrays(np.int64, rows, elements=st.integers(0, 4))
    )
)
floats = st.floats(-100, 100, width=32)
numbers = st.tuples(st.integers(2, 40), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(arrays(np.float64, shape, elements=floats), arrays(np.float64, shape, elements=floats))
)


def signature(*outputs: str) -> Signature:
    return Signature(inputs=(TensorSpec(name="x", datatype="FP32"),), outputs=tuple(SPECS[name] for name in outputs))


def chosen(name: str | None, *outputs: str, labels: Any = None, **options: Any) -> Metric:
    return metric_for(name, signature(*outputs), labels, **options)


def refusal(name: str | None, *outputs: str, labels: Any = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        chosen(name, *outputs, labels=labels, **options)
    return caught.value.message


def value(name: str, output: str, outputs: Tensors, labels: Any = None, reference: Tensors | None = None) -> float:
    metric = chosen(name, output, labels=labels)
    return metric.value(outputs, labels, reference)


# --- the arithmetic ---


@settings(deadline=None)
@given(classes)
def test_accuracy_and_f1_of_class_ids_are_those_of_scikit_learn(
    pair: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    truth, said = pair
    outputs = {"label": said}
    assert value("accuracy", "label", outputs, truth) == pytest.approx(sklearn.accuracy_score(truth, said))
    f1 = sklearn.f1_score(truth, said, average="macro", zero_division=0)
    assert value("f1", "label", outputs, truth) == pytest.approx(f1)
    # The mean of the recalls of the classes that there are; scikit-learn's own warns of those that are only said.
    recall = sklearn.recall_score(truth, said, average="macro", labels=np.unique(truth), zero_division=0)
    assert value("balanced-accuracy", "label", outputs, truth) == pytest.approx(recall)
    assert value("agreement", "label", outputs, None, {"label": truth}) == pytest.approx((truth == said).mean())


@settings(deadline=None)
@given(numbers)
def test_errors_of_numbers_are_those_of_scikit_learn(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    truth, said = pair
    spec = TensorSpec(name="y", datatype="FP64", shape=said.shape[1:])
    wanted = {
        "rmse": np.sqrt(sklearn.mean_squared_error(truth, said)),
        "mae": sklearn.mean_absolute_error(truth, said),
    }
    # scikit-learn calls R² of a column of equal labels 0 or 1; here it is undefined.
    spread = truth.std(axis=0) > 1e-3
    if spread.any():
        wanted["r2"] = sklearn.r2_score(truth[:, spread], said[:, spread])
    for name, expected in wanted.items():
        metric = metric_for(name, Signature(inputs=(spec,), outputs=(spec,)), truth)
        if name != "r2" or spread.all():
            assert metric.value({"y": said}, truth) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(
    st.integers(2, 60).flatmap(
        lambda rows: st.tuples(
            arrays(np.int64, rows, elements=st.integers(0, 1)),
            arrays(np.float32, rows, elements=st.floats(0, 1, width=16)),
        )
    )
)
def test_auc_of_two_classes_is_that_of_scikit_learn(pair: tuple[NDArray[np.int64], NDArray[np.float32]]) -> None:
    truth, said = pair
    truth[:2] = [0, 1]
    expected = sklearn.roc_auc_score(truth, said)
    assert value("auc", "score", {"score": said[:, None]}, truth) == pytest.approx(expected)
    logits = np.stack([np.zeros_like(said), said], axis=1)
    assert value("auc", "two", {"two": logits}, truth) == pytest.approx(expected)


def test_auc_of_many_classes_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 200)
    logits = random.standard_normal((200, 3)) + np.eye(3)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = sklearn.roc_auc_score(truth, scores, multi_class="ovr")
    for said in (scores, logits * 1.0):
        assert value("auc", "scores", {"scores": said}, truth) == pytest.approx(expected, rel=1e-12)
    without = truth != 2
    two = np.mean([sklearn.roc_auc_score(truth[without] == k, scores[without, k]) for k in (0, 1)])
    assert value("auc", "scores", {"scores": scores[without]}, truth[without]) == pytest.approx(two)


def test_scores_that_are_logits_stay_logits_when_the_compressed_model_keeps_them_small() -> None:
    truth = np.array([0, 1, 2])
    original = np.array([[3.0, -1, 0], [0, 2, 1], [1, 0, 5]])
    metric = chosen("auc", "scores", labels=truth)
    # Each row sums to 1. As probabilities the first row ranks highest for class 0, as logits the second does.
    small = np.array([[0.4, 0.6, 0], [0.39, 0.305, 0.305], [0, 0, 1]])
    assert metric.value({"scores": small}, truth, {"scores": original}) < metric.value({"scores": small}, truth)


def test_cosine_is_the_mean_of_the_rows() -> None:
    reference = {"tokens": np.array([[[1.0, 0]], [[0, 2]], [[1, 1]], [[0, 0]]])}
    said = {"tokens": np.array([[[5.0, 0]], [[0, -1]], [[1, 0]], [[0, 0]]])}
    metric = chosen("cosine", "tokens")
    assert metric.value(said, None, reference) == pytest.approx((1 - 1 + np.sqrt(0.5) + 1) / 4)
    assert metric.value({"tokens": reference["tokens"] * 0}, None, reference) == pytest.approx(1 / 4)
    rows = metric.contributions(said, None, reference)
    assert rows is not None
    assert rows.tolist() == pytest.approx([1, -1, np.sqrt(0.5), 1])


def test_the_class_of_scores_is_the_highest_and_nan_is_none() -> None:
    scores = np.array([[0.1, 0.9, 0], [np.nan, 1, 0], [-np.inf, 0, 1], [1, 0, 0]], np.float16)
    metric = chosen("accuracy", "scores", labels=CLASSES)
    assert metric.classes({"scores": scores}).tolist() == [1, -1, 2, 0]
    assert metric.value({"scores": scores}, np.array([1, 0, 2, 0])) == 0.75
    f1 = chosen("f1", "scores", labels=CLASSES)
    assert f1.value({"scores": scores}, np.array([1, 0, 2, 0])) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_text_is_the_class_of_its_name() -> None:
    metric = chosen("accuracy", "species", labels=CLASSES, names=NAMES)
    said = np.array([b"ant", b"bee", b"dog", b"cow"], dtype=object)
    assert metric.classes({"species": said}).tolist() == [0, 1, -1, 2]
    assert metric.value({"species": said}, CLASSES) == 0.5


def test_bfloat16_and_truth_values_are_read() -> None:
    array = np.arange(8).reshape(2, 4).astype(DTYPES["BF16"])
    assert chosen("cosine", "embedding").value({"embedding": array}) == pytest.approx(1)
    flags = chosen("accuracy", "flag", labels=BINARY)
    assert flags.value({"flag": np.array([[True], [True], [True], [False]])}, BINARY) == 0.75


def test_confidence_is_a_probability_also_of_logits() -> None:
    metric = chosen("accuracy", "label", "scores", labels=CLASSES)
    said = np.array([0, 2, -1])
    scores = {"scores": np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1, 0, 0]])}
    logits = {"scores": np.log(scores["scores"] + 1e-30)}
    for outputs in (scores, logits):
        found = metric.confidence(outputs, said)
        assert found is not None
        assert found[:2].tolist() == pytest.approx([0.5, 0.8])
        assert np.isnan(found[2])
    assert chosen("accuracy", "label", labels=CLASSES).confidence({"label": said}, said) is None


@settings(deadline=None)
@given(classes, st.integers(0, 2**32))
def test_what_a_row_adds_makes_up_the_metric(pair: tuple[NDArray[np.int64], NDArray[np.int64]], seed: int) -> None:
    truth, said = pair
    for name, outputs, labels in (
        ("accuracy", {"label": said}, truth),
        ("agreement", {"label": said}, None),
        ("mae", {"price": said.astype(np.float64)}, truth),
        ("rmse", {"price": said.astype(np.float64)}, truth),
    ):
        metric = chosen(name, *outputs, labels=labels)
        rows = metric.contributions(outputs, labels, {"label": truth})
        assert rows is not None
        mean = np.sqrt(rows.mean()) if name == "rmse" else rows.mean()
        assert metric.value(outputs, labels, {"label": truth}) == pytest.approx(mean)


# --- resamples ---


def repeated(array: Any, weights: NDArray[np.float64]) -> Any:
    return None if array is None else np.repeat(array, weights.astype(int), axis=0)


@pytest.mark.parametrize("name", METRICS)
@settings(deadline=None)
@given(rows=st.integers(3, 30), seed=st.integers(0, 2**32))
# Draws the row whose label is far from the mean and near zero three times.
@example(rows=3, seed=282289092)
def test_weights_are_the_same_as_rows_that_occur_so_often(name: str, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    family = METRICS[name][0]
    output = "price" if family == "numbers" else "scores"
    outputs = {"price": random.standard_normal(rows), "scores": np.round(random.random((rows, 3)), 1)}
    reference = {"price": random.standard_normal(rows), "scores": np.round(random.random((rows, 3)), 1)}
    labels = random.standard_normal(rows) if family == "numbers" else random.integers(0, 3, rows)
    metric = chosen(name, output, labels=labels)
    weights = random.multinomial(rows, np.full(rows, 1 / rows), size=5).astype(np.float64)
    values = metric.statistic(outputs, labels, reference)(weights)
    for weight, found in zip(weights, values, strict=True):
        drawn, original = ({key: repeated(a, weight) for key, a in part.items()} for part in (outputs, reference))
        again = metric.value(drawn, repeated(labels, weight), original)
        assert found == pytest.approx(again, rel=1e-6, abs=1e-9, nan_ok=True)


def test_the_same_seed_draws_the_same_and_statistics_are_paired() -> None:
    random = np.random.default_rng(0)
    right = (random.random(300) < 0.8).astype(np.float64)
    metric = chosen("accuracy", "label", labels=CLASSES)
    statistic = metric.statistic({"label": right.astype(np.int64)}, np.ones(300, np.int64), {})
    first = resample([statistic, lambda weights: 1 - statistic(weights)], 300, seed=5)
    assert first.shape == (1000, 2)
    np.testing.assert_allclose(first.sum(axis=1), 1)
    np.testing.assert_array_equal(first[:, 0], resample([statistic], 300, seed=5)[:, 0])
    assert not np.array_equal(first[:, 0], resample([statistic], 300, seed=6)[:, 0])


def test_many_rows_are_resampled_in_pieces_that_are_the_same_draws() -> None:
    rows = 30_000
    per_row = np.arange(rows) / rows
    values = resample([lambda weights: weights @ per_row / weights.sum(axis=1)], rows, seed=0, resamples=150)[:, 0]
    assert len(np.unique(values)) == 150
    assert values.std() == pytest.approx(np.sqrt(1 / 12 / rows), rel=0.3)


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    random = np.random.default_rng(1)
    per_row = random.standard_normal(2000)
    low, high = interval(resample([lambda weights: weights @ per_row / weights.sum(axis=1)], 2000, seed=2)[:, 0])
    assert (high - low) == pytest.approx(2 * 1.96 * per_row.std() / np.sqrt(2000), rel=0.1)
    assert low < per_row.mean() < high


def test_an_interval_leaves_out_what_is_undefined() -> None:
    assert interval(np.array([np.nan, 2.0, np.nan])) == (2.0, 2.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


# --- the choice ---


@pytest.mark.parametrize(
    ("outputs", "labels", "names", "expected"),
    [
        (["label", "scores"], CLASSES, NAMES, ("accuracy", "label")),
        (["scores", "label"], CLASSES, (), ("accuracy", "label")),
        (["tokens", "scores"], CLASSES, (), ("accuracy", "scores")),
        (["label", "scores"], CLASSES, ("3", "4", "5"), ("accuracy", "scores")),
        (["label", "scores"], CLASSES, ("0", "1", "2"), ("accuracy", "label")),
        (["species", "scores"], CLASSES, NAMES, ("accuracy", "species")),
        (["species", "scores"], CLASSES, (), ("accuracy", "scores")),
        (["two", "scores"], BINARY, NAMES, ("accuracy", "scores")),
        (["scores"], CLASSES.astype(np.float64), (), ("accuracy", "scores")),
        (["score"], BINARY, (), ("auc", "score")),
        (["score"], CLASSES, (), ("rmse", "score")),
        (["price"], FLOATS, (), ("rmse", "price")),
        (["price"], FLOATS[:, None], (), ("rmse", "price")),
        (["scores"], np.ones((4, 3)), (), ("rmse", "scores")),
        (["tokens"], CLASSES, (), ("cosine", "tokens")),
        (["label", "scores"], None, (), ("agreement", "label")),
        (["scores"], None, NAMES, ("agreement", "scores")),
        (["scores"], None, (), ("cosine", "scores")),
        (["tokens", "embedding"], None, (), ("cosine", "embedding")),
    ],
)
def test_without_a_name_the_metric_that_suits_is_chosen(
    outputs: list[str], labels: Any, names: tuple[str, ...], expected: tuple[str, str]
) -> None:
    metric = chosen(None, *outputs, labels=labels, names=names)
    assert (metric.name, metric.output) == expected


def test_the_output_can_be_chosen() -> None:
    metric = chosen("accuracy", "label", "scores", labels=CLASSES, output="scores")
    assert (metric.output, metric.kind, metric.scores) == ("scores", "scores", "scores")
    assert chosen("Balanced_Accuracy", "label", "scores", labels=CLASSES).scores == "scores"
    assert chosen("cosine", "label", "scores").output == "scores"
    assert "no output 'logits'; it has label, scores" in refusal(None, "label", "scores", output="logits")


def test_a_metric_knows_its_direction_and_unit() -> None:
    rmse, accuracy = chosen("rmse", "price", labels=FLOATS), chosen("accuracy", "label", labels=CLASSES)
    assert (rmse.higher_is_better, rmse.unit, rmse.needs_labels) == (False, "relative", True)
    assert (accuracy.higher_is_better, accuracy.unit, accuracy.needs_labels) == (True, "points", True)
    assert not chosen("cosine", "scores").needs_labels


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "problem"),
    [
        ("accuracy", ["price"], FLOATS, "metric 'accuracy' does not fit the outputs price FP64 [rows] with labels of "
         "float64, one a row; these fit: rmse, mae, r2"),
        ("accuracy", ["score"], BINARY, "these fit: auc, rmse, mae, r2"),
        ("f1", ["label", "scores"], None, "with no labels; these fit: agreement, cosine"),
        ("cosine", ["label"], CLASSES, "these fit: accuracy, balanced-accuracy, f1, agreement"),
        ("auc", ["score"], CLASSES, "these fit: rmse, mae, r2"),
        ("rmse", ["scores"], CLASSES, "these fit: accuracy, balanced-accuracy, f1, auc, agreement, cosine"),
        ("rmse", ["tokens"], np.ones((4, 5, 9)), "[5, 9] a row; these fit: cosine"),
        ("accuracy", ["label"], np.array([-1, 0]), "these fit: agreement"),
        (None, ["price"], None, "no metric fits the outputs price FP64 [rows] with no labels; name the column"),
        (None, ["ids"], CLASSES, "no metric fits the outputs ids INT32 [rows, 5]"),
        ("perplexity", ["label"], CLASSES, "no metric 'perplexity'; choose one of accuracy, balanced-accuracy, f1"),
        ("accuracy", ["scores"], np.array([0, 7, 3]), "label 7 (row 1) is no class of output 'scores', whose 3"),
    ],
)  # fmt: skip
def test_a_metric_that_does_not_fit_is_refused_with_those_that_do(
    name: str | None, outputs: list[str], labels: Any, problem: str
) -> None:
    assert problem in refusal(name, *outputs, labels=labels)


def test_labels_that_do_not_fit_the_metric_are_refused() -> None:
    with pytest.raises(DataError, match="needs labels that are class ids"):
        chosen("accuracy", "label", labels=CLASSES).value({"label": CLASSES}, FLOATS)
    with pytest.raises(DataError, match="needs labels; name their column"):
        chosen("rmse", "price", labels=FLOATS).value({"price": FLOATS})
    with pytest.raises(DataError, match=r"labels of the shape \[4, 2\] can't be compared with output 'price'"):
        chosen("rmse", "price", labels=FLOATS).value({"price": FLOATS}, np.ones((4, 2)))


@pytest.mark.parametrize(
    ("shape", "kind"), [((), "number"), ((1, 1), "number"), ((-1, -1), "tensor"), ((-1, 1), "tensor")]
)
def test_sizes_that_vary_are_no_single_number(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(TensorSpec(name="y", datatype="FP32", shape=shape), ()) == kind
