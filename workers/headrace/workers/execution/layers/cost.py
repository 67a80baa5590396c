"""The cost model learns from every batch that ran as a whole."""

from __future__ import annotations

from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict


class Cost:
    """Reports rows and seconds to the cost model of the batch's model."""

    def __init__(self, services: Services) -> None:
        """services: none."""

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch."""
        verdict = following(batch)
        if verdict.is_clean:
            batch.served.observe(max(batch.rows, batch.padded_rows), verdict.seconds)
        return verdict
