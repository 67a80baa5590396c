"""The messages that run at present, as the running marker in the broker names them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from headrace.queueing import RunningMarker


class RunningMessages:
    """Keeps the running marker equal to what runs: a batch, several in flight, or a message that is being decoded.

    Safe for several threads, as the marker itself is not.
    """

    def __init__(self, marker: RunningMarker) -> None:
        """marker: nobody else uses it."""
        self._marker = marker
        self._lock = threading.Lock()
        self._running: list[Mapping[str, Sequence[str]]] = []

    def begin(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Record that these messages run, besides those that do already. tags: by consumer."""
        with self._lock:
            self._running.append(tags)
            self._marker.set(tags if len(self._running) == 1 else _merged(self._running))

    def end(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Record that these run no more; the same object as in `begin`.

        The last ones stay marked until something else runs or `clear` is called, which saves a write for each batch.
        """
        with self._lock:
            self._running = [each for each in self._running if each is not tags]
            if self._running:
                self._marker.set(_merged(self._running))

    @property
    def is_stale(self) -> bool:
        """Whether the marker names messages though none runs."""
        return self._marker.stands and not self._running

    def clear(self) -> None:
        """Remove the marker, unless something runs."""
        with self._lock:
            if not self._running:
                self._marker.clear()

    def send(self, *command: str | int) -> None:
        """Send a command whose answer does not matter on the marker's connection; it may get lost."""
        with self._lock:
            self._marker.send(*command)

    def close(self) -> None:
        """Remove the marker and close its connection."""
        self.clear()
        with self._lock:
            self._marker.close()


def _merged(running: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for tags in running:
        for consumer, some in tags.items():
            merged.setdefault(consumer, []).extend(some)
    return merged
