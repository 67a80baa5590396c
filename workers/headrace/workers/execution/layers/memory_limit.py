"""The memory limit: out of memory lowers the batch limit of a model, and batches that succeed raise it again."""

from __future__ import annotations

from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict


class MemoryLimit:
    """Reports to the model how many rows its memory held."""

    def __init__(self, services: Services) -> None:
        """services: none."""

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch."""
        verdict = following(batch)
        if verdict.out_of_memory_rows is not None:
            batch.served.ran_out_at(verdict.out_of_memory_rows)
        elif verdict.is_clean:
            batch.served.succeeded_with(batch.rows)
        return verdict
