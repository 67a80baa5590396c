"""The digits, real and small: a trained network, its package, and rows to compress with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.compression.digit_net import DEMO_DATA, trained

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, read_package

#: Rows 0 to 897 trained the model; other people wrote the rest.
TRAIN_ROWS = 898


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """All 1,797 digits as the model takes them: FP32 [rows, 1, 8, 8] in 0..1, with labels INT64 [rows]."""
    with np.load(DEMO_DATA / "digits.npz") as file:
        images = (file["images"].astype(np.float32) / np.float32(16))[:, None]
        return Dataset({"image": images}, file["labels"].astype(np.int64))


@pytest.fixture(scope="session")
def splits(digits: Dataset) -> Splits:
    """The rows that trained the model, and two halves of the others."""
    held_out = np.arange(TRAIN_ROWS, len(digits))
    return Splits(
        train=digits.take(slice(0, TRAIN_ROWS)),
        calibration=digits.take(slice(0, 256)),
        selection=digits.take(held_out[::2]),
        test=digits.take(held_out[1::2]),
    )


@pytest.fixture(scope="session")
def digits_package() -> ModelPackage:
    """The package that the demo serves: FP32, ONNX Runtime; outputs `label` and `scores`."""
    return read_package(DEMO_DATA / "models/digits/1")


@pytest.fixture
def digits_network(digits: Dataset) -> Network:
    """The same model in torch."""
    return Network(
        name="digits",
        module=trained(),
        example=digits.take(slice(0, 8)).inputs,
        outputs=("label", "scores"),
        labels=tuple("0123456789"),
    )


@pytest.fixture
def context(tmp_path: Path, splits: Splits) -> StepContext:
    """A folder of this test's own, and the digits."""
    return StepContext(tmp_path / "context", splits)
