"""The running marker: names the messages of a batch before it runs, so that a crash counts against these only."""

from __future__ import annotations

from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict
from headrace.workers.request import tags_by_consumer


class RunningMarker:
    """Sets the running marker for each batch."""

    def __init__(self, services: Services) -> None:
        """services: `marker`."""
        self._marker = services.marker

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch under the marker."""
        tags = tags_by_consumer(batch.requests)
        self._marker.begin(tags)
        verdict = following(batch)
        self._marker.end(tags)
        return verdict
