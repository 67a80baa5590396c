"""Readings of Valkey's own counters, less what reading them costs.

A round trip is one network exchange: the server reads a client's commands once and writes its answers once.
Valkey counts both sides (`total_reads_processed`, `total_writes_processed`). A large request needs several reads
and a large reply several writes, so either count alone is too high; the smaller is the closer upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis


@dataclass(frozen=True)
class Counters:
    """Valkey's totals since its start, without the probe's own exchanges."""

    reads: int
    writes: int

    def round_trips_since(self, earlier: Counters) -> int:
        """Count the network exchanges since an earlier reading."""
        return min(self.reads - earlier.reads, self.writes - earlier.writes)


class Probe:
    """One connection that reads progress and counters, and remembers how often it did."""

    def __init__(self, url: str) -> None:
        """url: the server; the database does not matter for counters."""
        self._client = redis.Redis.from_url(url)
        # Connecting takes exchanges of its own; from here on each call is one.
        self._client.ping()
        self._exchanges = 0

    def run(self, *commands: tuple[object, ...]) -> list[Any]:
        """Run commands in one exchange, as one transaction."""
        with self._client.pipeline(transaction=True) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = pipe.execute()
        self._exchanges += 1
        return answers

    def counters(self) -> Counters:
        """Read the totals."""
        before = self._exchanges
        info = self._client.info("stats")
        self._exchanges += 1
        return Counters(
            # The read of this very INFO is counted already, its write is not.
            reads=int(info["total_reads_processed"]) - before - 1,
            writes=int(info["total_writes_processed"]) - before,
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
