"""A dataset is cut into parts that share no row, hold every class alike, and are the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.compression.data.dataset import MIN_ROWS, Dataset, Splits, dataset_sha256, split
from headrace.compression.errors import DataError


def rows_of(count: int, classes: int = 0, seed: int = 0) -> Dataset:
    """Rows that know their number: x FP32 [rows, 2], the first of them the row's number."""
    random = np.random.default_rng(seed)
    x = np.stack([np.arange(count), random.standard_normal(count)], axis=1).astype(np.float32)
    return Dataset({"x": x}, random.integers(0, classes, count) if classes else None)


def numbers_of(part: Dataset) -> list[int]:
    return [int(number) for number in part.inputs["x"][:, 0]]


def parts_of(splits: Splits) -> dict[str, Dataset]:
    return {"train": splits.train, "selection": splits.selection, "test": splits.test}


@settings(deadline=None)
@given(st.integers(MIN_ROWS, 400), st.integers(0, 12), st.integers(0, 2**32), st.integers(1, 600))
def test_every_row_is_in_one_part_and_calibration_is_of_train(
    count: int, classes: int, seed: int, calibration_rows: int
) -> None:
    dataset = rows_of(count, classes)
    splits = split(dataset, seed=seed, calibration_rows=calibration_rows)
    found = [number for part in parts_of(splits).values() for number in numbers_of(part)]
    assert sorted(found) == list(range(count))
    calibration = numbers_of(splits.calibration)
    assert len(calibration) == len(set(calibration)) == min(calibration_rows, len(splits.train))
    assert set(calibration) <= set(numbers_of(splits.train))
    for name, share in {"train": 0.5, "selection": 0.2, "test": 0.3}.items():
        assert abs(len(parts_of(splits)[name]) - share * count) <= 1.5


@settings(deadline=None)
@given(st.integers(MIN_ROWS, 400), st.integers(1, 12), st.integers(0, 2**32))
def test_every_part_has_the_classes_in_the_proportions_of_the_whole(count: int, classes: int, seed: int) -> None:
    dataset = rows_of(count, classes, seed)
    assert dataset.labels is not None
    splits = split(dataset, seed=seed)
    for name, share in {"train": 0.5, "selection": 0.2, "test": 0.3}.items():
        labels = parts_of(splits)[name].labels
        assert labels is not None
        for number in range(classes):
            assert abs((labels == number).sum() - share * (dataset.labels == number).sum()) <= 2


def test_calibration_has_the_classes_in_their_proportions() -> None:
    splits = split(rows_of(4000, 10), seed=3, calibration_rows=100)
    assert splits.calibration.labels is not None
    counts = np.bincount(splits.calibration.labels, minlength=10)
    assert counts.min() >= 8
    assert counts.max() <= 12


def test_the_same_seed_gives_the_same_parts_and_another_gives_others() -> None:
    dataset = rows_of(200, 4)
    first, again, other = (split(dataset, seed=seed) for seed in (1, 1, 2))
    for name, part in parts_of(first).items():
        assert dataset_sha256(part) == dataset_sha256(parts_of(again)[name])
        assert dataset_sha256(part) != dataset_sha256(parts_of(other)[name])


def test_rows_and_labels_stay_together_and_know_where_they_came_from() -> None:
    dataset = rows_of(100, 5)
    assert dataset.labels is not None
    test = split(dataset, seed=0).test.take(slice(3, 9))
    assert test.labels is not None
    assert test.origins().tolist() == numbers_of(test)
    assert test.labels.tolist() == dataset.labels[test.origins()].tolist()


def test_labels_that_are_numbers_are_split_too() -> None:
    dataset = Dataset(rows_of(64).inputs, np.linspace(0, 1, 64))
    assert len(split(dataset, seed=0).train) in range(31, 34)


@settings(deadline=None)
@given(st.integers(MIN_ROWS, 200), st.integers(0, 2**32))
def test_with_a_test_given_apart_all_the_data_is_to_train_and_choose_with(count: int, seed: int) -> None:
    test = rows_of(10, 3, seed=99)
    splits = split(rows_of(count, 3), seed=seed, test=test)
    assert splits.test is test
    assert sorted(numbers_of(splits.train) + numbers_of(splits.selection)) == list(range(count))
    assert abs(len(splits.selection) - count * 2 / 7) <= 1


def refusal(dataset: Dataset, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        split(dataset, seed=0, **options)
    return caught.value.message


def test_too_little_data_is_refused_with_what_is_needed() -> None:
    assert refusal(rows_of(31)).startswith("31 rows are too few to train, choose and test with; give at least 32")
    assert "9 rows are too few to test with; give at least 10" in refusal(rows_of(40), test=rows_of(9))
    assert "at least 1 row, not 0" in refusal(rows_of(40), calibration_rows=0)


def test_a_test_that_would_prove_nothing_is_refused() -> None:
    assert "the test rows are the rows to compress with" in refusal(rows_of(40, 3), test=rows_of(40, 3))


def test_a_test_of_another_kind_is_refused() -> None:
    other = Dataset({"x": np.zeros((20, 3), np.float32)})
    assert "other inputs, datatypes or shapes" in refusal(rows_of(40), test=other)
    assert "the test rows have no labels" in refusal(rows_of(40, 3), test=rows_of(40))
    assert "the rows to compress with have no labels" in refusal(rows_of(40), test=rows_of(40, 3))


def test_the_hash_tells_apart_whatever_differs() -> None:
    x = np.arange(6, dtype=np.float32)
    text = np.array([b"a", b"bc", b"", b"d", b"e", b"f"], dtype=object)
    moved = np.array([b"ab", b"c", b"", b"d", b"e", b"f"], dtype=object)
    datasets = [
        Dataset({"x": x}),
        Dataset({"y": x}),
        Dataset({"x": x[::-1]}),
        Dataset({"x": x.reshape(2, 3)}),
        Dataset({"x": x.astype(np.int32)}),
        Dataset({"x": x.view(np.int32)}),
        Dataset({"x": x}, np.zeros(6, np.int64)),
        Dataset({"x": x}, np.arange(6)),
        Dataset({"x": x, "labels": x}),
        Dataset({"x": text}),
        Dataset({"x": moved}),
    ]
    assert len({dataset_sha256(dataset) for dataset in datasets}) == len(datasets)


def test_the_hash_is_of_the_values_alone() -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3)
    plain = dataset_sha256(Dataset({"x": x, "y": y}))
    assert plain == dataset_sha256(Dataset({"y": y, "x": np.asfortranarray(x).astype(">f4")}))
    assert plain == dataset_sha256(Dataset({"x": x, "y": y}, None, np.array([7, 8, 9])))
    assert dataset_sha256(Dataset({"x": np.zeros(0, np.float32)})) != plain
