"""Models of certain row counts: any number of rows runs, in pieces and padded, and nobody sees the padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import Signature, Tensors, TensorSpec
from headrace.runtimes.fixed_rows import FixedRows

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", datatype="FP32", shape=(2,)),
        TensorSpec(name="h", datatype="FP32", shape=(3,), rows_at=1),
        TensorSpec(name="k", datatype="FP32", per_request=True),
    ),
    outputs=(
        TensorSpec(name="y", datatype="FP32", shape=(2,), rows_at=1),
        TensorSpec(name="k", datatype="FP32", per_request=True),
    ),
)


class Strict:
    """Runs the given row counts only, and notes them."""

    def __init__(self, sizes: set[int]) -> None:
        self.sizes = sizes
        self.ran: list[int] = []

    def infer(self, inputs: Tensors) -> Tensors:
        rows = len(inputs["x"])
        assert rows in self.sizes
        assert inputs["h"].shape == (3, rows)
        self.ran.append(rows)
        return {"y": (inputs["x"] + inputs["h"].sum(axis=0)[:, None]).T * inputs["k"], "k": inputs["k"]}

    def close(self) -> None:
        self.ran.append(0)


@given(st.integers(1, 200), st.sets(st.integers(1, 64), min_size=1, max_size=5))
def test_all_rows_run_in_the_fewest_runs_and_come_back_in_their_order(rows: int, sizes: set[int]) -> None:
    bare = Strict(sizes)
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    h = np.arange(3 * rows, dtype=np.float32).reshape(3, rows)
    found = FixedRows(bare, SIGNATURE, sorted(sizes)).infer({"x": x, "h": h, "k": np.array(2, np.float32)})
    np.testing.assert_array_equal(found["y"], (x + h.sum(axis=0)[:, None]).T * 2)
    assert found["k"].item() == 2
    assert len(bare.ran) == -(-rows // max(sizes))
    assert bare.ran[:-1] == [max(sizes)] * (len(bare.ran) - 1)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_smallest_size_that_holds_them_runs(rows: int) -> None:
    bare = Strict({1, 4, 8})
    inputs = {"x": np.ones((rows, 2), np.float32), "h": np.ones((3, rows), np.float32), "k": np.ones((), np.float32)}
    FixedRows(bare, SIGNATURE, (1, 4, 8)).infer(inputs)
    assert bare.ran == [rows]


def test_closing_it_closes_the_model() -> None:
    bare = Strict({1})
    FixedRows(bare, SIGNATURE, (1,)).close()
    assert bare.ran == [0]
