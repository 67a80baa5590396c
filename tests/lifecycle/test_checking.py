"""The check of a package by real batches: what came back, the sizes that are tried, and the one that pays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.contracts import ModelDirectory, PackageError, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.tensors.rows import RowAxes
from headrace.lifecycle.packages.batch_sizes import paying_rows
from headrace.lifecycle.packages.checking import (
    ReturnedOutput,
    Timing,
    check_package,
    example_row,
    repeated,
    sizes_to_try,
)
from headrace.lifecycle.packages.registry import add_model


def test_sizes_double_up_to_max_rows_or_are_those_of_the_package() -> None:
    assert sizes_to_try(BatchingAdvice(max_rows=1)) == [1]
    assert sizes_to_try(BatchingAdvice(max_rows=8)) == [1, 2, 4, 8]
    assert sizes_to_try(BatchingAdvice(max_rows=10)) == [1, 2, 4, 8, 10]
    assert sizes_to_try(BatchingAdvice(max_rows=8, row_sizes=(4, 8))) == [4, 8]


def test_a_row_of_zeros_has_sizes_that_are_known_to_run() -> None:
    specs = (
        TensorSpec(name="x", datatype="FP32", shape=(-1, 2), sample_shape=(5, 2)),
        TensorSpec(name="t", datatype="BYTES", shape=(-1,), rows_at=1),
        TensorSpec(name="k", datatype="INT64", shape=(3,), per_request=True),
        TensorSpec(name="maybe", datatype="FP32", optional=True),
    )
    row = example_row(specs)
    assert {name: array.shape for name, array in row.items()} == {"x": (1, 5, 2), "t": (1, 1), "k": (3,)}
    assert row["t"].tolist() == [[b""]]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_rows_of_a_sample_are_repeated(rows: int) -> None:
    axes = RowAxes((TensorSpec(name="x", datatype="FP32", shape=(2,), rows_at=1),))
    batch = repeated(axes, {"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, rows)
    assert batch["x"][0].tolist() == [1, 2, 3, 1, 2, 3, 1][:rows]


def test_a_local_model_is_checked_too(double: Path, tmp_path: Path) -> None:
    package = add_model(double, ModelDirectory(tmp_path / "models"), max_rows=4)
    told: list[Timing] = []
    found = check_package(package, watch=told.append)
    assert (found.rows, found.outputs, found.version) == (1, (ReturnedOutput("y", "FP32", (1, 4)),), "")
    assert [timing.rows for timing in found.timings] == [1, 2, 4]
    assert list(found.timings) == told
    assert found.pays == paying_rows([(timing.rows, timing.seconds) for timing in found.timings])


def test_a_model_of_requests_alone_has_no_sizes(double: Path, tmp_path: Path) -> None:
    package = add_model(double, ModelDirectory(tmp_path / "models"), independent_rows=False)
    found = check_package(package)
    assert (found.timings, found.pays, len(found.outputs)) == ((), 0, 1)


def test_a_sample_that_does_not_fit_is_refused(double: Path, tmp_path: Path) -> None:
    package = add_model(double, ModelDirectory(tmp_path / "models"))
    np.savez(tmp_path / "rows.npz", wrong=np.zeros((1, 4), np.float32))
    with pytest.raises(PackageError, match=r"the sample holds wrong, but the model takes x"):
        check_package(package, sample=tmp_path / "rows.npz")
    np.savez(tmp_path / "rows.npz", x=np.zeros((1, 5), np.float32))
    with pytest.raises(PackageError, match=r"the sample doesn't run: "):
        check_package(package, sample=tmp_path / "rows.npz")
