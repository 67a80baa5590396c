"""Rows to calibrate, train and measure with: inputs, and labels if there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import Tensors


@dataclass(frozen=True)
class Dataset:
    """Inputs of a model, rows first, with the datatypes of its signature; labels: one entry a row, or None."""

    inputs: Tensors
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        """Count the rows."""
        return len(next(iter(self.inputs.values())))

    def take(self, rows: NDArray[np.intp] | slice) -> Dataset:
        """Give some of the rows, in the order asked for."""
        return Dataset(
            {name: array[rows] for name, array in self.inputs.items()},
            None if self.labels is None else self.labels[rows],
        )


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
