"""The window: how many requests of a queue may be claimed now, given those that wait and how long they will take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from headrace.workers.batching import prefetch
from headrace.workers.models.served_model import ServedModel
from headrace.workers.models.table import ModelTable

#: Requests for this many full batches are claimed ahead while batches are short, so that one is read while one runs.
BATCHES_AHEAD: Final = 2

#: And for this many, at most, of those that could start at once on a model server.
BATCHES_IN_FLIGHT: Final = 8

#: While the server is away, requests for this many rows, at least, are looked at in one go: those whose deadline has
#: passed end.
ROWS_LOOKED_AT: Final = 256


class Window:
    """Counts claimed requests that have not begun; `batching.prefetch` decides how many are claimed ahead.

    `taken` is the executor thread's to call, all else the main thread's. No lock: each counter has one writer.
    """

    def __init__(
        self, models: ModelTable, running: Callable[[], prefetch.Running | None], most_bytes: int | float = math.inf
    ) -> None:
        """running: returns the batch that runs. most_bytes: of inputs that were claimed and have not begun."""
        self._models = models
        self._running = running
        self._most_bytes = most_bytes
        self._bytes_admitted = self._bytes_taken = 0
        #: By queue: rows and requests that were admitted, and rows that have left again.
        self._admitted: dict[str, list[int]] = {}
        self._taken: dict[str, int] = {}
        #: The queues of which something may be waiting.
        self._occupied: set[str] = set()

    def admit(self, queue: str, rows: int, size_bytes: int = 0) -> None:
        """Count a request that was claimed."""
        self._bytes_admitted += size_bytes
        counts = self._admitted.get(queue)
        if counts is None:
            counts = self._admitted[queue] = [0, 0]
        counts[0] += rows
        counts[1] += 1
        if queue not in self._occupied:
            self._occupied.add(queue)

    def withdraw(self, queue: str, rows: int, size_bytes: int = 0) -> None:
        """Count a request as if it had never been admitted: it went back, or ended without a model."""
        self._bytes_admitted -= size_bytes
        counts = self._admitted[queue]
        counts[0] -= rows
        counts[1] -= 1

    def taken(self, queue: str, rows: int, size_bytes: int = 0) -> None:
        """Count rows that have left their batcher."""
        self._bytes_taken += size_bytes
        self._taken[queue] = self._taken.get(queue, 0) + rows

    def opens_in_s(self, now: float) -> float:
        """Return after how many seconds anything may be claimed; infinity: not before what runs has ended."""
        return prefetch.opens_in_s(prefetch.rest_s(self._running(), now), self._waiting_s())

    @property
    def room_bytes(self) -> float:
        """How many bytes of requests may be claimed; 0 or less when there is no room, or more was claimed."""
        return self._most_bytes - self._bytes_admitted + self._bytes_taken

    def put_off_s(self, queue: str, now: float) -> float:
        """Return for how many seconds nothing need be claimed from a queue, since its models' servers are away."""
        models = self._models.of_queue(queue)
        return max(min([served.put_off_until for served in models], default=0.0) - now, 0.0)

    def room(self, queue: str) -> int:
        """Return how many requests of a queue may be claimed while anything may be."""
        if self.room_bytes <= 0:
            return 0
        models = self._models.of_queue(queue)
        wanted_rows = max((_rows_ahead(served) for served in models), default=BATCHES_AHEAD)
        wanted_rows -= self._waiting_rows(queue, models)
        if wanted_rows <= 0:
            return 0
        rows, requests = self._admitted.get(queue, (0, 0))
        rows_per_request = max(1.0, rows / requests) if requests > 0 else 1.0
        return -int(-wanted_rows // rows_per_request)

    def _waiting_rows(self, queue: str, models: list[ServedModel]) -> int:
        rows, _ = self._admitted.get(queue, (0, 0))
        return rows - self._taken.get(queue, 0) - sum([served.parked_rows for served in models])

    def _waiting_s(self) -> float:
        """Return how long all that waits will run, or something above the longest that allows a claim."""
        total_s = 0.0
        for queue in tuple(self._occupied):
            models = self._models.of_queue(queue)
            rows = self._waiting_rows(queue, models)
            if rows > 0 and models and all(served.concurrent for served in models):
                # They hold up nobody: what waits for a server doesn't wait for this worker's processor.
                continue
            if rows > 0:
                total_s += max((_work_s(served, rows) for served in models), default=math.inf)
                if total_s > prefetch.AHEAD_S:
                    break
            elif not any(served.parked_rows for served in models):
                self._occupied.discard(queue)
        return total_s


def _rows_ahead(served: ServedModel) -> int:
    batch_rows = served.batcher.max_rows
    if served.concurrent:
        if served.is_away:
            return max(batch_rows * BATCHES_IN_FLIGHT, ROWS_LOOKED_AT)
        free = served.max_in_flight - served.in_flight
        return batch_rows * min(max(free, 1), BATCHES_IN_FLIGHT)
    batch_s = served.cost.predict(batch_rows) or math.inf
    return prefetch.rows_ahead(batch_s, batch_rows, BATCHES_AHEAD * served.max_rows)


def _work_s(served: ServedModel, rows: int) -> float:
    return prefetch.work_s(served.cost.predict, rows, served.batcher.max_rows)
