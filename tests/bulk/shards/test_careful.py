"""Careful runs: which row killed workers, found across lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.shards.careful import CarefulRun
from headrace.bulk.shards.inference import Direct
from headrace.bulk.shards.run import Directive, Plan, Tally
from headrace.bulk.sources.base import RowBatch
from headrace.contracts.errors import HeadraceError
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes
from headrace.results_store.jobs.records import Slice

ROWS = 300


class Killed(BaseException):
    """Stands for the death of the process: nothing is written after it."""


class Prepared:
    """All rows are good."""

    refused: tuple[Any, ...] = ()
    lengths = None
    groups = None
    skipped = np.empty(0, np.int64)

    def __init__(self, x: np.ndarray) -> None:
        self.good = np.arange(len(x))
        self._x = x

    def tensors(self, which: np.ndarray) -> Tensors:
        return {"x": self._x[which][:, None]}


class Numbers:
    """A preparation that takes the column as it is."""

    columns = ("x",)
    notes = ()
    rows_at_once = 0
    file_uri = ""
    reads_paths = False

    def prepare(self, table: pa.RecordBatch) -> Prepared:
        return Prepared(table.column("x").to_numpy())


class Going:
    def directive(self) -> Directive:
        return Directive.GO

    def progress(self, rows: int) -> None:
        pass


class Written:
    size_bytes = 0

    def __init__(self) -> None:
        self.values: list[float] = []

    def write(self, raw: Any, which: np.ndarray, outputs: list[Any]) -> None:
        self.values += [float(value) for piece in outputs for value in piece["x"][:, 0]]


class Lives:
    """The ledger's side: the mark that is left when a life ends."""

    def __init__(self, batch_rows: int, infer: Callable[[np.ndarray], None]) -> None:
        self.suspect: tuple[int, int] | None = None
        self.deaths = 0
        self._batch_rows = batch_rows
        self._infer = infer
        self._dead = False

    def run(self) -> tuple[Tally, list[float]] | None:
        """Run one life; None when it ended in death."""
        table = pa.record_batch({"x": np.arange(ROWS, dtype=np.float32)})
        written = Written()
        self._dead = False

        def run(batch: Any) -> Any:
            try:
                self._infer(batch["x"][:, 0])
            except Killed:
                self._dead = True
                raise
            return batch

        plan = Plan(
            part=Slice(file_no=0, rows=ROWS),
            read=lambda _: [RowBatch(file_no=0, table=table, rows=np.arange(ROWS), next_row=ROWS, bad=[])],
            preparation=Numbers(),  # type: ignore[arg-type]
            inference=Direct(run, _explain),
            input_axes=RowAxes((TensorSpec(name="x", datatype="FP32", shape=(1,)),)),
            batch_rows=self._batch_rows,
            group_rows=256,
            most_bytes=1 << 30,
        )
        careful = CarefulRun(plan, written, Going(), self._mark)
        try:
            tally = careful.run(self.suspect)
        except Killed:
            self.deaths += 1
            return None
        return tally, written.values

    def _mark(self, start: int, stop: int) -> None:
        if not self._dead:
            self.suspect = (start, stop)


def _explain(error: Exception, inputs: Tensors) -> HeadraceError:
    raise AssertionError(f"no row fails: {error}")


@given(st.integers(0, ROWS - 1), st.sampled_from([1, 7, 64, 256]))
def test_a_row_that_kills_is_found_alone_within_few_deaths(poison: int, batch_rows: int) -> None:
    def infer(x: np.ndarray) -> None:
        if poison in x:
            raise Killed

    lives = Lives(batch_rows, infer)
    while (found := lives.run()) is None:
        assert lives.deaths < 5
    tally, values = found
    assert [row.row for row in tally.bad] == [poison]
    assert values == [float(at) for at in range(ROWS) if at != poison]
    assert (tally.ok, tally.rows, tally.ended) == (ROWS - 1, ROWS, True)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=2), st.sampled_from([1, 7, 64, 256]))
def test_kills_that_have_nothing_to_do_with_the_rows_bury_none(before_runs: list[int], batch_rows: int) -> None:
    """Three workers die, the first in a run that is not careful yet, even if both others die while one row runs."""
    lives = Lives(batch_rows, lambda _: None)
    for run_no in before_runs:
        runs = iter(range(1_000))

        def infer(_: np.ndarray, runs: Any = runs, run_no: int = run_no) -> None:
            if next(runs) == run_no:
                raise Killed

        lives._infer = infer
        lives.run()
    lives._infer = lambda _: None
    found = lives.run()
    assert found is not None
    assert found[0].bad == []
    assert found[1] == [float(at) for at in range(ROWS)]


def test_a_life_that_ends_in_an_error_blames_nobody() -> None:
    def killed(x: np.ndarray) -> None:
        if 5 in x:
            raise Killed

    def cancelled(x: np.ndarray) -> None:
        if 5 in x:
            raise CancelledByWorker

    lives = Lives(64, killed)
    while lives.suspect != (5, 6):
        assert lives.run() is None
    lives._infer = cancelled
    for _ in range(3):
        with pytest.raises(CancelledByWorker):
            lives.run()
        assert lives.suspect == (5, 6)


class CancelledByWorker(BaseException):
    """The worker ends by its own will."""
