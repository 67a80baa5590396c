"""A layer that leaves a line for each batch in the file that TRACE_FILE names."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict


class Tracing:
    def __init__(self, services: Services) -> None:
        self._file = Path(os.environ["TRACE_FILE"])

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        verdict = following(batch)
        with self._file.open("a") as file:
            file.write(f"{batch.served!r} rows={batch.rows} failed={len(verdict.outcomes)}\n")
        return verdict
