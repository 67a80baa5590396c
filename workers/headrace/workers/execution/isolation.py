"""Isolated requests: those that ran when a worker died. They run alone, after all others of the same worker."""

from __future__ import annotations

from typing import Final

from headrace.workers.batching import Item
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import InferenceRequest

#: Below all others, so that a request that may kill the worker runs last; ageing bounds the delay to seconds.
ISOLATED_PRIORITY: Final = -1


def is_isolated(request: InferenceRequest) -> bool:
    """Return whether a worker died while it ran this request."""
    return bool(request.deaths)


def request_item(request: InferenceRequest, now: float) -> Item[InferenceRequest]:
    """Wrap a request for the batcher."""
    served: ServedModel = request.served  # type: ignore[assignment]  # where the intake found it
    if is_isolated(request):
        # A bucket of its own: nobody shares a batch with a request that was running when a worker died.
        return Item(request, request.rows, ISOLATED_PRIORITY, request.deadline, now, request)
    return Item(request, request.rows, request.priority, request.deadline, now, served.bucket_of(request.inputs))
