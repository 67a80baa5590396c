"""Whose batch comes next: lanes take turns, and none passes by one that waits for the outbox to have room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.workers.batching import Batch
from headrace.workers.models.served_model import Lane
from headrace.workers.request import InferenceRequest


class Turns:
    """The order of the batches of all lanes; for the executor's thread."""

    def __init__(self, lanes: Sequence[Lane], has_room_for: Callable[[int], bool]) -> None:
        """lanes: their owner may add to them. has_room_for: whether outputs of so many bytes may be held as well."""
        self._lanes = lanes
        self._has_room_for = has_room_for
        self._next = 0
        #: Whether the batch that comes next waits for room.
        self.blocked = False

    def take(self, now: float) -> tuple[Lane, Batch[InferenceRequest]] | None:
        """Take a batch from the next lane that has one; None if none has, or the first has no room."""
        self.blocked = False
        for offset in range(len(self._lanes)):
            index = (self._next + offset) % len(self._lanes)
            lane = self._lanes[index]
            if not self._has_room_for(lane.next_output_bytes):
                wake = lane.batcher.wake_at(now)
                if wake is not None and wake <= now:
                    # If smaller ones of other models went on, there would never be room for this one.
                    self.blocked = True
                    return None
                continue
            batch = lane.batcher.take(now)
            if batch is not None:
                self._next = index + 1
                return lane, batch
        return None
