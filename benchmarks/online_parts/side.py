"""What the measurements ask of a side."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import psutil

from online_parts.agent import Agent
from online_parts.probe import Probe


class Side(Protocol):
    """plain Celery or headrace: its workers, clients, progress and results."""

    name: str
    probe: Probe

    def describe(self) -> str:
        """Write the configuration in one line."""

    def clear(self) -> None:
        """Drop queues and results."""

    def worker(self) -> AbstractContextManager[psutil.Process]:
        """Run the workers; the process given is the root of their tree."""

    def client(self) -> AbstractContextManager[Agent]:
        """Run a client process."""

    def keep_queue(self) -> None:
        """Keep a copy of the queue as it is now."""

    def refill_queue(self, count: int) -> None:
        """Put the copy's oldest `count` requests back onto the queue."""

    def done(self, total: int) -> int:
        """Count how many of `total` submitted requests have their result stored; one exchange with Valkey."""

    def verify(self, sample: list[tuple[int, str]], total: int) -> None:
        """Check that `total` results are stored and that those of `sample` are right. Raises WrongResult."""


class WrongResult(Exception):
    """A run lost, doubled or falsified a result; its figures mean nothing."""


def check_count(name: str, found: int, wanted: int) -> None:
    """Raise WrongResult unless all results are there."""
    if found != wanted:
        raise WrongResult(f"{name} stored {found} results for {wanted} requests")
