"""Batch advice from the times of several sizes: a fitted line, and the size beyond which more rows don't pay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Final

import msgspec

from headrace.lifecycle.packages.batch_sizes import ENOUGH, knee_of, paying_rows

#: A wait for company saves half of a run's fixed seconds at most (docs/batching.md).
_WAIT_SHARE: Final = 0.5

#: Nobody should wait longer than this for a batch to fill, whatever it saves.
_LONGEST_WAIT_MS: Final = 50.0

#: A line through fewer sizes than this follows their noise.
_MIN_FITTED: Final = 3


class Point(msgspec.Struct, frozen=True):
    """Batches of `rows` rows with `threads` threads; seconds as in `timing.Timing`.

    peak_bytes: the most memory held so far, above an idle process; sizes were run in rising order, so it is what
    batches of up to this size need.
    """

    threads: int
    rows: int
    seconds: float
    median_seconds: float
    p95_seconds: float
    rows_per_second: float
    peak_bytes: int


class Advice(msgspec.Struct, frozen=True):
    """Advice for a worker: a run of n rows takes `seconds_fixed + n * seconds_per_row`, up to max_rows.

    knee_rows: the fewest rows with nearly the model's best throughput. max_rows: the same of batches in a worker, where
    each costs WORKER_S more; the smaller the model, the more it has to be shared.
    """

    threads: int
    knee_rows: int
    max_rows: int
    max_wait_ms: float
    seconds_fixed: float
    seconds_per_row: float


def fit_line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return a and b, neither negative, of seconds = a + b·rows.

    The median slope of all pairs, then the median intercept (Theil 1950, Sen 1968): nearly a third of the points may
    be far off. Of one size alone, all counts as per row, which never makes a wait look good. points: (rows, seconds).
    """
    slopes = [(s2 - s1) / (r2 - r1) for (r1, s1), (r2, s2) in combinations(points, 2) if r1 != r2]
    if slopes:
        per_row = max(median(slopes), 0.0)
        fixed = median(seconds - per_row * rows for rows, seconds in points)
        if fixed >= 0:
            return fixed, per_row
    return 0.0, median(seconds / rows for rows, seconds in points)


def advise(points: Sequence[Point]) -> Advice:
    """Choose the fewest threads, then the fewest rows, that give nearly the best throughput.

    The line is that of the sizes up to `max_rows`, which are all that a worker will run; where these are too few, of
    the first three.
    """
    by_threads = {
        threads: sorted((point.rows, point.seconds) for point in points if point.threads == threads)
        for threads in sorted({point.threads for point in points})
    }
    best = {threads: max(rows / seconds for rows, seconds in curve) for threads, curve in by_threads.items()}
    threads = min(count for count, speed in best.items() if speed >= ENOUGH * max(best.values()))
    curve = by_threads[threads]
    max_rows = paying_rows(curve)
    fitted = [point for point in curve if point[0] <= max_rows]
    fixed, per_row = fit_line(fitted if len(fitted) >= _MIN_FITTED else curve[:_MIN_FITTED])
    wait_ms = min(_WAIT_SHARE * fixed * 1000, _LONGEST_WAIT_MS)
    return Advice(threads, knee_of(curve), max_rows, rounded(wait_ms), rounded(fixed), rounded(per_row))


def rounded(value: float) -> float:
    """Keep four digits that count; a measurement has no more."""
    return float(f"{value:.4g}")
