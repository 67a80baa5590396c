"""Progress of a job as people and programs see it: it never goes down, and is whole only after publication."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import msgspec

#: The most that is shown before the output is published.
_ALMOST: Final = 0.999

#: The present rate is that of the last so many seconds.
_RECENT_S: Final = 30.0

#: The end of a job is not estimated from less work than this.
_LEAST_S: Final = 2.0
_LEAST_SHARE: Final = 0.002

#: However steady the rates are, the rest may be unlike what was done.
_SPREAD: Final = 0.1
_SPREAD_ONCE: Final = 0.3


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is, in one reading of the ledger.

    Rows done are ok, bad or skipped. rows_total, bytes_total: of all that is listed so far; rows -1 while uncounted.
    active_s: seconds since its first shard began; 0 before.
    """

    rows_ok: int = 0
    rows_bad: int = 0
    rows_skipped: int = 0
    rows_total: int = -1
    bytes_done: int = 0
    bytes_total: int = 0
    shards_done: int = 0
    shards_running: int = 0
    shards_pending: int = 0
    planned: bool = False
    published: bool = False
    active_s: float = 0.0

    @property
    def rows(self) -> int:
        """The rows that are done."""
        return self.rows_ok + self.rows_bad + self.rows_skipped

    @property
    def share(self) -> float:
        """The share of the known work that is done: by rows when all is planned and counted, else by bytes."""
        if self.planned and self.rows_total > 0:
            return min(1.0, self.rows / self.rows_total)
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total > 0 else 0.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a job that runs. eta_s: seconds to its end, at least and at most; None while unknown."""

    share: float
    rows_per_s: float
    eta_s: tuple[float, float] | None


class Estimator:
    """Estimates from readings, one after the other; pure: time comes in."""

    def __init__(self) -> None:
        """Begin without a reading."""
        self._share = 0.0
        self._seen: deque[tuple[float, int, float]] = deque()

    def take(self, now: float, counts: Counts) -> Estimate:
        """Return what a reading adds up to. now: seconds of a clock that doesn't go back."""
        share = 1.0 if counts.published else min(counts.share, _ALMOST)
        self._share = share = max(share, self._share)
        self._seen.append((now, counts.rows, share))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RECENT_S:
            self._seen.popleft()
        whole_rate = counts.rows / counts.active_s if counts.active_s > 0 else 0.0
        recent = self._recent(now)
        rows_per_s = max(0.0, recent[0] if recent else whole_rate)
        return Estimate(share=share, rows_per_s=rows_per_s, eta_s=self._eta(counts, share, recent))

    def _recent(self, now: float) -> tuple[float, float] | None:
        """Return rows and share of the work a second, lately; None if it is too early to tell."""
        since, rows, share = self._seen[0]
        if now - since < _LEAST_S:
            return None
        last = self._seen[-1]
        return (last[1] - rows) / (now - since), (last[2] - share) / (now - since)

    def _eta(self, counts: Counts, share: float, recent: tuple[float, float] | None) -> tuple[float, float] | None:
        if counts.published:
            return (0.0, 0.0)
        if share < _LEAST_SHARE or counts.active_s < _LEAST_S or not counts.planned:
            return None
        rates = [share / counts.active_s]
        if recent and recent[1] > 0:
            rates.append(recent[1])
        spread = _SPREAD if len(rates) > 1 else _SPREAD_ONCE
        left = 1.0 - share
        low, high = left / max(rates) * (1 - spread), left / min(rates) * (1 + spread)
        return (low, high) if math.isfinite(high) else None


class WorkerShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker did for a job, and where its time went; the steps overlap."""

    worker: str
    shards: int = 0
    rows: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A job at one time.

    share: of the work that is done, from 0 to 1; never 1 before the output is published. planned: whether all inputs
    are listed and cut; before, totals are at least what they are said to be. eta_s: seconds to the end, at least and
    at most; None while unknown. error: why it failed, "" if it didn't.
    """

    id: str
    name: str
    model: str
    version: str
    state: str
    output: str
    counts: Counts
    share: float
    rows_per_s: float
    eta_s: tuple[float, float] | None
    workers: list[WorkerShare] = []
    error: str = ""

    @property
    def planned(self) -> bool:
        """Whether all inputs are listed and cut into shards."""
        return self.counts.planned
