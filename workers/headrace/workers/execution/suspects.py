"""Suspects: requests that were running when a worker died. They run alone, after all others of the same worker."""

from __future__ import annotations

from typing import Final

from headrace.workers.batching import Item
from headrace.workers.request import InferenceRequest

#: Below all others, so that what may kill the worker runs last; ageing sees to it that this takes seconds at most.
SUSPECT_PRIORITY: Final = -1


def is_suspect(request: InferenceRequest) -> bool:
    """Return whether a worker died while it ran this request."""
    return bool(request.deaths)


def request_item(request: InferenceRequest, now: float) -> Item[InferenceRequest]:
    """Wrap a request for the batcher."""
    lane = request.lane
    assert lane is not None
    if is_suspect(request):
        # A bucket of its own: nobody shares a batch with a request that was running when a worker died.
        return Item(request, request.rows, SUSPECT_PRIORITY, request.deadline, now, request)
    return Item(request, request.rows, request.priority, request.deadline, now, lane.bucket_of(request.inputs))
