"""The environment of the engines, and outputs of real jobs for them to read."""

from __future__ import annotations

import datetime as dt
import decimal
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from tests.bulk.small_models import add_model_m
from tests.workers.conftest import command, running_worker

from headrace.contracts import Settings
from headrace.testing import TemporaryStack

ENVIRONMENT: Final = Path(os.environ.get("HEADRACE_ENGINES") or Path(__file__).parents[3] / ".venv-engines")

ROWS: Final = 60

#: Scores the input in a format; returns the output folder.
Scored: TypeAlias = Callable[[str], Path]


@pytest.fixture(scope="session")
def engines() -> str:
    """The interpreter of the engines' environment."""
    python = ENVIRONMENT / "bin" / "python"
    assert python.exists(), f"{python} is not there: `make test-engines` makes it"
    return str(python)


@pytest.fixture(scope="module")
def settings(headrace_stack: TemporaryStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a worker that serves the model `m`."""
    folder = tmp_path_factory.mktemp("engines")
    with headrace_stack.key_space() as broker_url, headrace_stack.results_store() as database_url:
        settings = Settings(
            broker_url=SecretStr(broker_url),
            database_url=SecretStr(database_url),
            models=add_model_m(folder / "models"),
            home=folder / "home",
        )
        with running_worker(settings, folder / "worker.log", HEADRACE_BULK_ROOTS=str(folder)):
            yield settings


@pytest.fixture(scope="module")
def scored(settings: Settings) -> Scored:
    """`scored("csv")` scores a file with `headrace score`, once for each format."""
    folder = settings.models.parent
    source = folder / "rows.parquet"
    pq.write_table(input_table(), source)

    def score(kind: str) -> Path:
        output = folder / kind
        if not output.exists():
            kept = [name for name in input_table().column_names if name not in {"x", "at"}]
            keep = [f"--keep={name}" for name in kept]
            ran = command(settings, "score", "m", str(source), f"--output={output}", f"--format={kind}", *keep)
            assert ran.returncode == 0, ran.stderr
            assert {"_SUCCESS", "_manifest.json", "_errors"} <= {path.name for path in output.iterdir()}
        return output

    return score


def input_table() -> pa.Table:
    """Rows for the model `m`, with columns of many types; two of twelve rows are bad."""
    rows = range(ROWS)
    x = np.array([[row, -row] for row in rows], np.float32)
    noon = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
    return pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 2),
            "at": pa.array([row % 12 for row in rows]),
            "id": pa.array(rows, pa.int16()),
            "name": pa.array([None if row % 5 == 1 else f'ü{row}\n,"' for row in rows]),
            "when": pa.array([noon + dt.timedelta(seconds=row) for row in rows], pa.timestamp("us", "UTC")),
            "day": pa.array([noon.date()] * ROWS),
            "price": pa.array([decimal.Decimal(row) / 4 for row in rows], pa.decimal128(9, 2)),
            "seen": pa.array([row % 3 == 0 for row in rows]),
            "half": pa.array(np.arange(ROWS, dtype=np.float16)),
            "tags": pa.array([["a"] * (row % 3) for row in rows]),
        }
    )


def expected() -> pa.Table:
    """The rows that the model `m` can score: the kept columns with their types, and its outputs."""
    good = [row for row in range(ROWS) if row % 12 < 10]
    kept = input_table().take(pa.array(good)).drop_columns(["x", "at"])
    x = np.array([[row, -row] for row in good], np.float32) * 2
    y = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 2)
    labels = pa.array(["a" if row >= 0 else "b" for row in good])
    picked = pa.array([row % 12 for row in good], pa.float32())
    made = {"y": y, "picked": picked, "label": labels, "score": pa.array(x.max(1))}
    return pa.table({**{name: kept[name] for name in kept.column_names}, **made})
