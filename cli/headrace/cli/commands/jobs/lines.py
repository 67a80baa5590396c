"""Progress and end of a bulk job as one line."""

from __future__ import annotations

from typing import Final

from headrace.contracts.formatting import sized
from headrace.contracts.jobs import STORE, JobState
from headrace.producers.jobs.progress import Counts, Progress

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def duration(seconds: float) -> str:
    """Return a time as people say it, with no more digits than matter."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def span(eta_s: tuple[float, float] | None) -> str:
    """Return a range of times: `2 min 05 s to 3 min 10 s`; "" if it is unknown."""
    if eta_s is None:
        return ""
    low, high = map(duration, eta_s)
    return low if low == high else f"{low} to {high}"


def percent(share: float) -> str:
    """Return a share as a percentage, rounded down: 100 is for what is done."""
    return f"{int(share * 1000) / 10:.1f} %"


def amount(counts: Counts) -> str:
    """Return how much is done of how much; "≥" where more may be found."""
    if counts.planned and counts.rows_total >= 0:
        return f"{counts.rows:,} of {counts.rows_total:,} rows"
    at_least = "" if counts.planned else "≥ "
    done = f"{counts.rows:,} rows, {sized(counts.bytes_done)} of {at_least}{sized(counts.bytes_total)}"
    return done if counts.planned else f"{done}, still planning"


def progress_line(progress: Progress) -> str:
    """Return the progress in one line, without the job's name."""
    counts = progress.counts
    parts = [progress.state, percent(progress.share), amount(counts)]
    if progress.rows_per_s and progress.state not in {JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}:
        parts.append(f"{progress.rows_per_s:,.0f} rows/s")
    left = span(progress.eta_s)
    if left and progress.state in {JobState.PLANNING, JobState.RUNNING}:
        parts.append(f"{left} left")
    if counts.rows_bad:
        parts.append(f"{counts.rows_bad:,} bad")
    return " · ".join(parts)


def end_lines(progress: Progress) -> list[str]:
    """Return what is told of a job that has succeeded."""
    counts = progress.counts
    skipped = f", {counts.rows_skipped:,} skipped" if counts.rows_skipped else ""
    took = f" in {duration(counts.active_s)}" if counts.active_s else ""
    lines = [f"{counts.rows_ok:,} rows scored{skipped}{took}; output: {progress.output}"]
    if counts.rows_bad:
        where = "" if progress.output == STORE else f", which are listed in {progress.output.rstrip('/')}/_errors"
        lines.append(
            f"{counts.rows_bad:,} bad rows{where}; `headrace jobs show {progress.name}` shows why, "
            f"`headrace jobs retry {progress.name}` runs them again"
        )
    return lines
