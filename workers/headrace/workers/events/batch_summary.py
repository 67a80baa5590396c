"""Micro-batches as pseudo-tasks: one by one, or summed up when there are many."""

from __future__ import annotations

from collections import Counter

import msgspec

from headrace.workers.events.wording import counted
from headrace.workers.request import FinishedBatch, ModelRef


class BatchSummary(msgspec.Struct, gc=False):
    """One or several micro-batches of a model, as one pseudo-task of Flower's. Times are seconds since 1970."""

    served: ModelRef
    id: str
    started_at: float
    batches: int = 0
    rows: int = 0
    requests: int = 0
    failed: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: float = 0.0
    finished_at: float = 0.0

    def add(self, batch: FinishedBatch) -> None:
        """Count one batch in."""
        self.batches += 1
        self.rows += batch.rows
        self.requests += batch.requests
        self.failed += len(batch.outcomes)
        self.reasons[str(batch.reason)] += 1
        self.seconds += batch.seconds
        self.started_at = min(self.started_at, batch.started_at)
        self.finished_at = max(self.finished_at, batch.finished_at)

    @property
    def args(self) -> str:
        """Rows and requests, in words."""
        text = f"{counted(self.rows, 'row')} of {counted(self.requests, 'request')}"
        return text if self.batches == 1 else f"{self.batches} batches: {text}"

    @property
    def kwargs(self) -> str:
        """The same, as Flower's search reads it: `kwargs:reason='full'`, `kwargs:rows=64`."""
        fields: dict[str, object] = {"rows": self.rows, "requests": self.requests}
        if self.batches == 1:
            fields["reason"] = next(iter(self.reasons))
        else:
            fields |= {"batches": self.batches, "reasons": dict(self.reasons)}
        return repr(fields | {"seconds": round(self.seconds, 6), "version": self.served.package.version})

    @property
    def result(self) -> str:
        """How many requests succeeded and failed, in words."""
        succeeded = f"{self.requests - self.failed:,} succeeded"
        return f"{succeeded}, {self.failed:,} failed" if self.failed else succeeded
