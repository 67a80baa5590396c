"""The order of batches: models take turns, and none overtakes one that waits for room in the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.workers.batching import Batch
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import InferenceRequest


class Turns:
    """The order of the batches of all models; for the executor's thread."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        may_start: Callable[[ServedModel], bool],
        has_room_for: Callable[[int], bool],
    ) -> None:
        """models: their owner may add to them. may_start: whether a batch of a model may start now.

        has_room_for: whether the outbox may hold outputs of this many bytes as well.
        """
        self._models = models
        self._may_start = may_start
        self._has_room_for = has_room_for
        self._next = 0
        #: Whether the batch that comes next waits for room.
        self.blocked = False

    def take(self, now: float) -> tuple[ServedModel, Batch[InferenceRequest]] | None:
        """Take a batch from the next model that has one; None if none has, or the first has no room."""
        self.blocked = False
        for offset in range(len(self._models)):
            index = (self._next + offset) % len(self._models)
            served = self._models[index]
            if not self._may_start(served):
                continue
            if not self._has_room_for(served.next_output_bytes):
                wake = served.batcher.wake_at(now)
                if wake is not None and wake <= now:
                    # If smaller ones of other models went on, there would never be room for this one.
                    self.blocked = True
                    return None
                continue
            batch = served.batcher.take(now)
            if batch is not None:
                self._next = index + 1
                return served, batch
        return None

    def wakes_at(self, now: float) -> float | None:
        """Return when `take` should be called again if nothing changes until then; None if nothing waits."""
        wakes = [
            wake
            for served in self._models
            if self._may_start(served) and (wake := served.batcher.wake_at(now)) is not None
        ]
        return min(wakes, default=None)
