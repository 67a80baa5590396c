"""What a compressed model lost is measured on the same rows as its original, with an interval, and held to a bound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.errors import CompressionError, DataError
from headrace.compression.evaluation.disagreements import disagreements
from headrace.compression.evaluation.evaluate import Evaluation, assess, evaluate
from headrace.compression.evaluation.max_drop import MaxDrop, surely_within, within
from headrace.compression.evaluation.metric_choice import metric_for
from headrace.compression.evaluation.metrics import Metric
from headrace.compression.evaluation.prediction import predict
from headrace.contracts import ConfigurationError, ModelPackage, PackageError, Signature, Tensors, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, write_manifest

X = TensorSpec(name="x", datatype="FP32")


def metric_of(name: str, spec: TensorSpec, labels: Any, names: tuple[str, ...] = ()) -> Metric:
    return metric_for(name, Signature(inputs=(X,), outputs=(spec,)), labels, names=names)


def rows_of(count: int, labels: Any = None) -> Dataset:
    return Dataset({"x": np.zeros(count, np.float32)}, labels)


LABEL = TensorSpec(name="label", datatype="INT64")
PRICE = TensorSpec(name="price", datatype="FP32")
VECTOR = TensorSpec(name="vector", datatype="FP32", shape=(4,))


def of_classes(right: int, count: int = 200) -> tuple[Tensors, Dataset]:
    """Outputs of which the first `right` are what the labels say."""
    labels = np.arange(count) % 2
    return {"label": np.where(np.arange(count) < right, labels, 1 - labels)}, rows_of(count, labels)


# --- running a package ---


@pytest.mark.parametrize("batch_rows", [1, 64, 450, 1000])
def test_a_package_is_run_over_all_rows_whatever_the_batch(
    digits_package: ModelPackage, splits: Splits, batch_rows: int
) -> None:
    found = predict(digits_package, splits.selection, threads=1, batch_rows=batch_rows)
    whole = predict(digits_package, splits.selection, threads=1, batch_rows=len(splits.selection))
    np.testing.assert_array_equal(found["label"], whole["label"])
    np.testing.assert_allclose(found["scores"], whole["scores"], atol=1e-5)


class Recorder:
    """A runtime that doubles x, and remembers what it was given and that it was closed."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.closed = False
        self.answer: Callable[[NDArray[Any]], Any] = lambda x: {"price": x * 2}

    def load(self, package: ModelPackage) -> Recorder:
        return self

    def infer(self, inputs: Tensors) -> Any:
        self.rows.append(len(inputs["x"]))
        return self.answer(inputs["x"])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("headrace.runtimes.loading.find_runtime", lambda name, device, threads: recorder)
    return recorder


def package_like(package: ModelPackage, folder: Path, **changes: Any) -> ModelPackage:
    shutil.copytree(package.folder, folder)
    manifest = msgspec.structs.replace(package.manifest, **changes)
    write_manifest(folder, manifest)
    return ModelPackage(folder=folder, manifest=manifest)


@pytest.fixture
def doubler(digits_package: ModelPackage, tmp_path: Path) -> ModelPackage:
    return package_like(
        digits_package,
        tmp_path / "doubler",
        inputs=(X,),
        outputs=(PRICE,),
        labels=(),
        batching=BatchingAdvice(max_rows=4, row_sizes=(2, 4)),
    )


def test_engines_of_fixed_sizes_get_batches_of_those_sizes(doubler: ModelPackage, recorder: Recorder) -> None:
    x = np.arange(9, dtype=np.float32)
    assert predict(doubler, Dataset({"x": x}), threads=1)["price"].tolist() == (2 * x).tolist()
    assert recorder.rows == [4, 4, 2]
    assert recorder.closed


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda x: {"price": x[:1]}, r"'price' of digits has the shape \[1\] for 4 rows"),
        (lambda x: {"cost": x}, "gives no output 'price'"),
        (lambda x: 1 / 0, "digits fails on 4 rows from row 0 on: division by zero"),
        (lambda x: {"price": np.zeros((len(x), len(x)))}, "outputs of different sizes for different batches"),
    ],
)
def test_a_model_that_misbehaves_is_refused_and_closed(
    doubler: ModelPackage, recorder: Recorder, answer: Any, problem: str, tmp_path: Path
) -> None:
    recorder.answer = answer
    any_rows = package_like(doubler, tmp_path / "any-rows", batching=BatchingAdvice())
    with pytest.raises(CompressionError, match=problem):
        predict(any_rows, rows_of(6), threads=1, batch_rows=4)
    assert recorder.closed


def test_data_that_do_not_fit_the_package_are_refused(digits_package: ModelPackage) -> None:
    with pytest.raises(DataError, match="the data don't fit digits: input 'image' is missing"):
        predict(digits_package, rows_of(3), threads=1)


def test_a_damaged_package_is_not_run(digits_package: ModelPackage, splits: Splits, tmp_path: Path) -> None:
    package = package_like(digits_package, tmp_path / "damaged")
    with package.file.open("ab") as file:
        file.write(b"x")
    with pytest.raises(PackageError, match="checksum"):
        predict(package, splits.test, threads=1)


# --- the figures ---


def test_the_original_digits_are_measured(digits_package: ModelPackage, splits: Splits) -> None:
    manifest = digits_package.manifest
    metric = metric_for(None, manifest.signature, splits.test.labels, names=manifest.labels)
    found = evaluate(digits_package, splits.test, metric, reference=None, threads=1, seed=0)
    assert (found.metric, found.output, found.rows, found.drop) == ("accuracy", "label", 449, None)
    assert 0.97 < found.low < found.value < found.high <= 1
    again = evaluate(digits_package, splits.test, metric, reference=None, threads=1, seed=0)
    assert again == found
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found


def test_a_model_loses_nothing_against_itself(digits_package: ModelPackage, splits: Splits) -> None:
    outputs = predict(digits_package, splits.test, threads=1)
    signature = digits_package.manifest.signature
    for name in ("accuracy", "balanced-accuracy", "f1", "auc", "agreement", "cosine"):
        metric = metric_for(name, signature, splits.test.labels)
        found = assess(outputs, splits.test, metric, reference=outputs, seed=0)
        assert (found.drop, found.drop_low, found.drop_high) == (0, 0, 0)
        assert within(found, MaxDrop(0))
        json.dumps(msgspec.to_builtins(found), allow_nan=False)


def test_a_drop_of_a_share_is_counted_in_points() -> None:
    original, dataset = of_classes(200)
    compressed, _ = of_classes(190)
    found = assess(compressed, dataset, metric_of("accuracy", LABEL, dataset.labels), reference=original, seed=0)
    assert found.drop == pytest.approx(0.05)
    assert found.drop_low is not None
    assert found.drop_high is not None
    assert 0.01 < found.drop_low < 0.05 < found.drop_high < 0.09
    assert found.describe().startswith("accuracy 0.95 (0.9")
    assert found.describe().endswith("drop 5.00 pt")


def test_a_drop_of_an_error_is_relative_to_the_original() -> None:
    labels = np.linspace(0, 9, 100)
    dataset = rows_of(100, labels)
    original, compressed = {"price": labels + 1}, {"price": labels + 1.1}
    for name in ("rmse", "mae"):
        metric = metric_of(name, PRICE, labels)
        found = assess(compressed, dataset, metric, reference=original, seed=0)
        assert found.value == pytest.approx(1.1)
        assert found.drop == pytest.approx(0.1)
        assert within(found, MaxDrop.parse("10%"))
        assert not within(found, MaxDrop.parse("9.9%"))
        better = assess(original, dataset, metric, reference=compressed, seed=0)
        assert better.drop == pytest.approx(1 / 1.1 - 1)
        assert within(better, MaxDrop(0))


def test_a_drop_from_no_error_at_all_is_finite_and_beyond_any_bound() -> None:
    labels = np.linspace(0, 9, 100)
    metric = metric_of("rmse", PRICE, labels)
    found = assess({"price": labels + 1e-3}, rows_of(100, labels), metric, reference={"price": labels}, seed=0)
    assert found.drop is not None
    assert np.isfinite(found.drop)
    assert not within(found, MaxDrop(1))


def test_pairing_makes_the_interval_of_the_drop_narrower_than_that_of_the_value() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 500)
    original = np.where(random.random(500) < 0.8, labels, 1 - labels)
    compressed = original.copy()
    compressed[:5] = 1 - compressed[:5]
    metric = metric_of("accuracy", LABEL, labels)
    found = assess({"label": compressed}, rows_of(500, labels), metric, reference={"label": original}, seed=0)
    assert found.drop_low is not None
    assert found.drop_high is not None
    assert (found.drop_high - found.drop_low) < 0.5 * (found.high - found.low)


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 80), st.integers(0, 2**32), st.sampled_from(["accuracy", "f1", "mae", "r2", "cosine"]))
def test_intervals_hold_together(rows: int, seed: int, name: str) -> None:
    random = np.random.default_rng(seed)
    labels: Any = random.integers(0, 3, rows) if name in {"accuracy", "f1"} else random.standard_normal((rows, 4))
    outputs = {"vector": random.standard_normal((rows, 4)).astype(np.float32)}
    reference = {"vector": random.standard_normal((rows, 4)).astype(np.float32)}
    metric = metric_of(name, VECTOR, labels)
    found = assess(outputs, rows_of(rows, labels), metric, reference=reference, seed=seed)
    assert found.low <= found.high
    assert found.drop is not None
    assert found.drop_low is not None
    assert found.drop_high is not None
    assert found.drop_low <= found.drop_high
    own = assess(reference, rows_of(rows, labels), metric, reference=None, seed=seed)
    if name == "mae":
        assert found.drop == pytest.approx(found.value / own.value - 1)
    else:
        assert found.drop == pytest.approx(own.value - found.value)


def test_rows_that_turned_nan_are_counted_and_no_bound_holds() -> None:
    labels = np.linspace(0, 9, 100)
    metric = metric_of("rmse", PRICE, labels)
    original, compressed = labels + 1, labels + 1
    original[0] = compressed[0] = np.nan
    compressed[1], compressed[2] = np.inf, np.nan
    dataset = rows_of(100, labels)
    found = assess({"price": compressed}, dataset, metric, reference={"price": original}, seed=0)
    assert (found.not_finite_rows, found.rows) == (2, 97)
    assert found.drop == pytest.approx(0)
    assert not within(found, MaxDrop(1))
    assert not surely_within(found, MaxDrop(1))
    own = assess({"price": original}, dataset, metric, reference=None, seed=0)
    assert (own.not_finite_rows, own.rows) == (1, 99)


def test_nan_in_any_output_is_counted_and_a_class_of_nan_is_wrong() -> None:
    labels = np.array([0, 1, 2, 3] * 5)
    scores = np.eye(4)[labels]
    broken = scores.copy()
    broken[3, 0] = np.nan
    metric = metric_of("accuracy", VECTOR, labels)
    found = assess({"vector": broken}, rows_of(20, labels), metric, reference={"vector": scores}, seed=0)
    assert (found.value, found.rows, found.not_finite_rows) == (0.95, 20, 1)
    label = metric_of("accuracy", LABEL, labels)
    outputs = {"label": labels, "vector": broken}
    found = assess(outputs, rows_of(20, labels), label, reference={"label": labels, "vector": scores}, seed=0)
    assert (found.value, found.drop, found.not_finite_rows) == (1, 0, 1)
    assert not within(found, MaxDrop(1))


def test_what_can_not_be_measured_is_refused() -> None:
    labels = np.linspace(0, 9, 20)
    dataset, price = rows_of(20, labels), metric_of("rmse", PRICE, labels)
    ones = {"price": np.ones(20)}
    for outputs, reference, problem in (
        ({"price": np.full(20, np.nan)}, ones, "NaN or infinite in every row"),
        ({"cost": np.ones(20)}, ones, "no output 'price' to measure; there is cost"),
        ({"price": np.ones(19)}, ones, "has 19 rows, but the data have 20"),
        ({"price": np.ones((20, 1))}, ones, r"rows of the shape \[1\], the original's have \[\]"),
    ):
        with pytest.raises(CompressionError, match=problem):
            assess(outputs, dataset, price, reference=reference, seed=0)
    same = rows_of(20, np.ones(20))
    with pytest.raises(DataError, match="r2 is undefined for these 20 rows"):
        assess(ones, same, metric_of("r2", PRICE, same.labels), reference=None, seed=0)


# --- the bound ---


@pytest.mark.parametrize("text", ["0.5%", "0.5 %", "0.5pt", "0.5 points", ".5%", "0.005", " 0.5PT "])
def test_half_a_point_is_written_in_many_ways(text: str) -> None:
    assert MaxDrop.parse(text).fraction == pytest.approx(0.005)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_bound_is_written_as_it_is_read(tenths: int) -> None:
    bound = MaxDrop(tenths / 1000)
    assert MaxDrop.parse(str(bound)).fraction == pytest.approx(bound.fraction)


@pytest.mark.parametrize("text", ["", "half", "-1%", "101%", "1e-3", "nan", "0.5 per cent", "%"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        MaxDrop.parse(text)


def test_a_plain_half_is_not_taken_for_fifty_points() -> None:
    with pytest.raises(ConfigurationError, match=r"a drop of 0\.5 would be 50 points; write 0\.5% or 0\.5pt"):
        MaxDrop.parse("0.5")


def test_rounding_is_no_drop_and_the_sure_answer_looks_at_the_worse_end() -> None:
    original, dataset = of_classes(198)
    compressed, _ = of_classes(197)
    found = assess(compressed, dataset, metric_of("accuracy", LABEL, dataset.labels), reference=original, seed=0)
    assert within(found, MaxDrop.parse("0.5%"))
    assert not surely_within(found, MaxDrop.parse("0.5%"))
    assert surely_within(found, MaxDrop.parse("5%"))
    assert not within(found, MaxDrop.parse("0.4%"))


# --- where they disagree ---


def test_rows_that_the_compressed_model_lost_are_listed_surest_first() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    original = {"label": np.array([0, 1, 2, 1, 1]), "scores": np.eye(3)[[0, 1, 2, 1, 1]] * 0.7 + 0.1}
    scores = np.array([[0.1, 0.6, 0.3], [0.1, 0.9, 0], [0.9, 0.1, 0], [0.2, 0, 0.8], [0, 1, 0]])
    compressed = {"label": scores.argmax(axis=1), "scores": scores}
    signature = Signature(inputs=(X,), outputs=(LABEL, TensorSpec(name="scores", datatype="FP32", shape=(3,))))
    metric = metric_for("accuracy", signature, labels, names=("ant", "bee", "cow"))
    dataset = Dataset({"x": np.zeros(5)}, labels, np.array([10, 11, 12, 13, 14]))
    found = disagreements(original, compressed, dataset, metric)
    assert [(d.row, d.origin, d.label, d.original, d.compressed) for d in found] == [
        (2, 12, "cow", "cow", "ant"),
        (0, 10, "ant", "ant", "bee"),
    ]
    assert found[0].compressed_confidence == pytest.approx(0.9)
    assert found[0].original_confidence == pytest.approx(0.8)
    assert len(disagreements(original, compressed, dataset, metric, limit=1)) == 1
    json.dumps(msgspec.to_builtins(found), allow_nan=False)


def test_without_labels_rows_whose_class_changed_are_listed() -> None:
    metric = metric_of("agreement", LABEL, None)
    found = disagreements({"label": np.array([0, 1, 2])}, {"label": np.array([0, 2, 1])}, rows_of(3), metric)
    assert [(d.row, d.label, d.original, d.compressed, d.compressed_confidence) for d in found] == [
        (1, None, "1", "2", None),
        (2, None, "2", "1", None),
    ]


def test_a_class_that_turned_nan_comes_first() -> None:
    labels = np.array([0, 1])
    after = np.array([[0.0, 1, 0, 0], [np.nan, 1, 0, 0]])
    metric = metric_of("accuracy", VECTOR, labels)
    found = disagreements({"vector": np.eye(4)[labels]}, {"vector": after}, rows_of(2, labels), metric)
    assert [(d.row, d.compressed, d.compressed_confidence) for d in found] == [(1, None, None), (0, "1", 1.0)]


def test_numbers_that_moved_most_are_listed_first() -> None:
    labels = np.array([1.0, 2, 3, 4, 5])
    before, after = labels + 0.5, labels + np.array([0.5, 0.6, 3, np.nan, 0.5])
    before[4] = after[4] = np.nan
    metric = metric_of("rmse", PRICE, labels)
    found = disagreements({"price": before}, {"price": after}, rows_of(5, labels), metric)
    assert [(d.row, d.label, d.original, d.compressed) for d in found] == [
        (3, 4, 4.5, None),
        (2, 3, 3.5, 6),
        (1, 2, 2.5, 2.6),
    ]
    assert [d.moved for d in found] == [None, 2.5, pytest.approx(0.1)]
    json.dumps(msgspec.to_builtins(found), allow_nan=False)


def test_vectors_that_turned_most_are_listed_first() -> None:
    before = np.eye(4)[[0, 1, 2]]
    after = before + np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, -2, 0]])
    found = disagreements({"vector": before}, {"vector": after}, rows_of(3), metric_of("cosine", VECTOR, None))
    assert [d.row for d in found] == [2, 0]
    assert [d.moved for d in found] == pytest.approx([2, 1 - np.sqrt(0.5)])
    assert found[0].original is None
