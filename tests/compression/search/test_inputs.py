"""Finding what is to be compressed, and its rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compression.digit_net import DEMO_DATA
from tests.compression.slow_model import slow_model_rows, write_model

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.errors import CompressionError, DataError
from headrace.compression.recipes.runner import Source
from headrace.compression.search.inputs import Request, open_source
from headrace.contracts import ModelDirectory, PackageError, UnknownModel

TRAINED = "tests.compression.digit_net:trained"


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    shutil.copytree(DEMO_DATA / "models/digits/1", tmp_path / "models/digits/1")
    return ModelDirectory(tmp_path / "models")


@pytest.fixture
def rows(tmp_path: Path, digits: Dataset) -> Path:
    assert digits.labels is not None
    np.savez(tmp_path / "rows.npz", label=digits.labels[-300:], image=digits.inputs["image"][-300:])
    return tmp_path / "rows.npz"


def opened(models: ModelDirectory, model: str, data: Path, **options: Any) -> tuple[Source, Splits]:
    request = Request(model, data, label="label", **options)
    return open_source(request, models, models.root.parent / "work", seed=0, threads=1)


def test_a_model_is_found_by_name_version_or_folder(models: ModelDirectory, rows: Path) -> None:
    for name in ("digits", "digits@1", "digits@latest", str(models.root / "digits/1")):
        source, data = opened(models, name, rows)
        assert (source.package.version, source.network, source.origin) == ("1", None, "digits 1")
        assert [len(part) for part in (data.train, data.selection, data.test)] == [150, 60, 90]
        assert data.calibration.inputs["image"].shape == (150, 1, 8, 8)


def test_test_rows_may_be_given_apart(models: ModelDirectory, rows: Path, tmp_path: Path) -> None:
    with np.load(rows) as file:
        np.savez(tmp_path / "test.npz", image=file["image"][:50], label=file["label"][:50])
        np.savez(tmp_path / "fit.npz", image=file["image"][50:], label=file["label"][50:])
    _, data = opened(models, "digits", tmp_path / "fit.npz", test=tmp_path / "test.npz")
    assert (len(data.test), len(data.train) + len(data.selection)) == (50, 250)
    with pytest.raises(DataError, match="the test rows are the rows to compress with"):
        opened(models, "digits", rows, test=rows)


def test_a_file_is_made_a_package_outside_the_model_directory(models: ModelDirectory, tmp_path: Path) -> None:
    file = write_model(tmp_path / "made-up.onnx", chain=0)
    data = slow_model_rows()
    columns: dict[str, Any] = {"label": data.labels, **data.inputs}
    np.savez(tmp_path / "data.npz", **columns)
    for _ in range(2):
        source, _ = opened(models, str(file), tmp_path / "data.npz", labels=("a", "b", "c", "d"))
        assert source.package.name == "made-up"
        assert source.package.manifest.labels == ("a", "b", "c", "d")
        assert source.origin == str(file)
    assert models.names() == ["digits"]


def test_a_package_and_its_network_are_compared(models: ModelDirectory, rows: Path, tmp_path: Path) -> None:
    source, _ = opened(models, "digits", rows, network=TRAINED)
    assert source.network is not None
    assert source.network.outputs == ("label", "scores")
    assert source.network.labels == source.package.manifest.labels
    assert not source.network.allow_nan
    (tmp_path / "another.py").write_text(
        "from tests.compression.digit_net import DigitNet, LabelAndScores\n"
        "def make():\n    return LabelAndScores(DigitNet()).eval()\n"
    )
    with pytest.raises(CompressionError, match=r"another\.py:make"):
        opened(models, "digits", rows, network=f"{tmp_path / 'another.py'}:make")


def test_what_does_not_belong_together_is_refused(models: ModelDirectory, rows: Path) -> None:
    with pytest.raises(CompressionError, match="leave --network out"):
        opened(models, TRAINED, rows, network=TRAINED)
    with pytest.raises(CompressionError, match="has names of its own"):
        opened(models, "digits", rows, name="other")
    with pytest.raises(UnknownModel, match="'digits' has no version '9'"):
        opened(models, "digits@9", rows)
    with pytest.raises(PackageError, match=r"gone\.onnx"):
        opened(models, "gone.onnx", rows)


def test_a_damaged_package_is_refused(models: ModelDirectory, rows: Path) -> None:
    models.get("digits").file.write_bytes(b"damaged")
    with pytest.raises(PackageError, match="does not match its checksum"):
        opened(models, "digits", rows)
