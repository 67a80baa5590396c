"""What every result must be: the model run directly, and the bare loop of full batches."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from online_parts.models import BenchModel, model_file, open_session
from online_parts.side import WrongResult


class Reference:
    """Direct runs of a model."""

    def __init__(self, models: Path, model: BenchModel) -> None:
        self._model = model
        self._session = open_session(model_file(models, model))
        self.rows = model.rows()

    def check(self, index: int, found: NDArray[np.float32]) -> None:
        """Compare the scores of request `index` with a direct run; batches may round differently."""
        row = self.rows[index % len(self.rows)]
        (wanted,) = self._session.run(None, {self._model.input: row[None]})
        if found.shape != wanted[0].shape or not np.allclose(found, wanted[0], rtol=1e-3, atol=1e-4):
            raise WrongResult(f"request {index} got {found.tolist()}, the model says {wanted[0].tolist()}")

    def bare_rate(self, seconds: float) -> float:
        """Run full batches in a bare loop for about so long; give rows per second."""
        batch = np.resize(self.rows, (self._model.max_rows, *self._model.shape))
        self._session.run(None, {self._model.input: batch})
        rows, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            self._session.run(None, {self._model.input: batch})
            rows += len(batch)
        return rows / (time.perf_counter() - began)
