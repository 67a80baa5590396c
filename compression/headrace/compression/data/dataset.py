"""Rows to calibrate, train and measure with: inputs, and labels if there are any; cut into parts, and hashed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import DataError
from headrace.contracts import Tensors
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of

if TYPE_CHECKING:
    from hashlib import _Hash

#: Fewer rows than this can't be cut into parts that say anything: ten for the test, six to choose by.
MIN_ROWS: Final = 32

#: A test given apart needs as many rows as `split` would take out of the fewest.
MIN_TEST_ROWS: Final = 10

#: Rows that set the ranges of int8; more change them little and cost time.
CALIBRATION_ROWS: Final = 512

Rows: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True)
class Dataset:
    """Inputs of a model, rows first, with the datatypes of its signature; labels: one entry a row, or None.

    labels: class ids (INT64 [rows]) or numbers ([rows] or [rows, …] like the output they are compared with).
    row_numbers: where each row was in the file it came from, counted from 0; None means all of them, in order.
    """

    inputs: Tensors
    labels: NDArray[Any] | None = None
    row_numbers: Rows | None = None

    def __len__(self) -> int:
        """Count the rows."""
        return len(next(iter(self.inputs.values())))

    def take(self, rows: NDArray[np.intp] | slice) -> Dataset:
        """Return some of the rows, in the order asked for."""
        return Dataset(
            {name: array[rows] for name, array in self.inputs.items()},
            None if self.labels is None else self.labels[rows],
            self.origins()[rows],
        )

    def origins(self) -> Rows:
        """Return the row numbers, [rows], also when they are simply all in order."""
        return np.arange(len(self)) if self.row_numbers is None else self.row_numbers


@dataclass(frozen=True)
class Splits:
    """One dataset cut into parts that share no row, but for calibration, which is part of train.

    train: to fit weights with. calibration: some of them, to set the ranges of int8. selection: to choose between
    attempts. test: for the figures that are reported and decide on promotion; nothing is chosen by it.
    """

    train: Dataset
    calibration: Dataset
    selection: Dataset
    test: Dataset


def split(
    dataset: Dataset, *, seed: int, calibration_rows: int = CALIBRATION_ROWS, test: Dataset | None = None
) -> Splits:
    """Cut a dataset into 50 % train, 20 % selection and 30 % test; the same seed gives the same parts.

    With labels that are class ids, every part has the classes in the proportions of the whole, to within two rows of
    each. calibration_rows: how many of train also calibrate; all of them when there are fewer. test: rows given
    apart; then the dataset becomes train and selection, 5 to 2.
    Raises DataError when there are too few rows, or when `test` is not of the same kind or is the same data.
    """
    _check_rows(dataset, calibration_rows)
    random = np.random.default_rng(seed)
    rows = _by_class(dataset.labels, random.permutation(len(dataset)))
    if test is None:
        held_out, rows = _deal(rows, 3, 10)
        test = dataset.take(random.permutation(held_out))
    else:
        _check_test(dataset, test)
    selection, train = _deal(rows, 2, 7)
    # Evenly spaced among rows in the order of their classes, so that each class keeps its share here too.
    calibration = train[np.linspace(0, len(train), min(calibration_rows, len(train)), endpoint=False).astype(np.intp)]
    return Splits(
        train=dataset.take(random.permutation(train)),
        calibration=dataset.take(random.permutation(calibration)),
        selection=dataset.take(random.permutation(selection)),
        test=test,
    )


def _check_rows(dataset: Dataset, calibration_rows: int) -> None:
    if len(dataset) < MIN_ROWS:
        raise DataError(
            f"{len(dataset)} rows are too few to train, choose and test with; give at least {MIN_ROWS}, "
            "better a few thousand"
        )
    if calibration_rows < 1:
        raise DataError(f"calibration needs at least 1 row, not {calibration_rows}")


def _check_test(dataset: Dataset, test: Dataset) -> None:
    if len(test) < MIN_TEST_ROWS:
        raise DataError(f"{len(test)} rows are too few to test with; give at least {MIN_TEST_ROWS}")
    if (dataset.labels is None) != (test.labels is None):
        lacking = "test rows" if test.labels is None else "rows to compress with"
        raise DataError(f"the {lacking} have no labels, but the others have; give both with labels, or both without")
    kinds = [{name: (a.dtype, a.shape[1:]) for name, a in part.inputs.items()} for part in (dataset, test)]
    if kinds[0] != kinds[1]:
        raise DataError("the test rows have other inputs, datatypes or shapes than the rows to compress with")
    if len(test) == len(dataset) and dataset_sha256(test) == dataset_sha256(dataset):
        raise DataError(
            "the test rows are the rows to compress with, so the test would prove nothing; leave the test out for a "
            "part of the data to be held back, or give other rows"
        )


def _by_class(labels: NDArray[Any] | None, rows: Rows) -> Rows:
    """Bring shuffled rows into the order of their classes, if they have any."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        return rows
    return rows[np.argsort(labels[rows], kind="stable")]


def _deal(rows: Rows, share: int, of: int) -> tuple[Rows, Rows]:
    """Take `share` of every `of` rows, evenly spread; gives those and the others, both in the order they had."""
    position = np.arange(len(rows), dtype=np.int64)
    # Half a share ahead, so that the rounding of short runs favours neither side.
    dealt = ((position + 1) * share + of // 2) // of > (position * share + of // 2) // of
    return rows[dealt], rows[~dealt]


def dataset_sha256(dataset: Dataset) -> str:
    """Hash inputs and labels (names, datatypes, shapes, bytes), in hex; the order of the inputs makes no difference."""
    digest = hashlib.sha256()
    for name in sorted(dataset.inputs):
        _hash_array(digest, f"input {name}", dataset.inputs[name])
    if dataset.labels is not None:
        _hash_array(digest, "labels", dataset.labels)
    return digest.hexdigest()


def _hash_array(digest: _Hash, title: str, array: NDArray[Any]) -> None:
    datatype = datatype_of(array.dtype)
    digest.update(repr((title, datatype, array.shape)).encode())
    if datatype != "BYTES":
        digest.update(np.ascontiguousarray(array, DTYPES[datatype]).view(np.uint8).data)
        return
    for element in array.reshape(-1).tolist():
        raw = element.encode() if isinstance(element, str) else element
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
