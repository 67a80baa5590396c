"""The memory limit: batches that are too large lower the batch limit of a model, those that succeed raise it again."""

from __future__ import annotations

from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict


class MemoryLimit:
    """Reports to the model how many rows its memory held, or its server takes."""

    def __init__(self, services: Services) -> None:
        """services: none."""

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch."""
        verdict = following(batch)
        if verdict.most_rows is not None:
            batch.served.refused_above(verdict.most_rows)
        if verdict.too_many_rows is not None:
            batch.served.ran_out_at(verdict.too_many_rows)
        elif verdict.is_clean:
            batch.served.succeeded_with(batch.rows)
        return verdict
