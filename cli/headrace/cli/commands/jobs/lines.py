"""Progress and end of a bulk job as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.contracts.formatting import sized
from headrace.contracts.jobs import STORE, JobState
from headrace.producers.jobs.attaching import short

if TYPE_CHECKING:
    from headrace.results_store.jobs.progress import Progress

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400

#: States in which shards run or are to run.
_GOING: Final = frozenset({JobState.PLANNING, JobState.RUNNING})


def duration(seconds: float) -> str:
    """Return a time as people say it, with no more digits than matter."""
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def span(seconds: tuple[float, float] | None) -> str:
    """Return a range of times: `2 min 05 s to 3 min 10 s`; "" if it is unknown."""
    if seconds is None:
        return ""
    low, high = map(duration, seconds)
    return low if low == high else f"{low} to {high}"


def percent(share: float) -> str:
    """Return a share as a percentage, rounded down: 100 is for what is done."""
    return f"{int(share * 1000) / 10:.1f} %"


def done(progress: Progress) -> str:
    """Return how much of the whole is done; "" while nobody knows the whole."""
    return "" if progress.share is None else percent(progress.share)


def amount(progress: Progress) -> str:
    """Return how much is done of how much; "≥" where more may be found, "" while nothing has been."""
    if progress.rows_total is not None:
        return f"{progress.rows_done:,} of {progress.rows_total:,} rows"
    planning = "" if progress.job.plan_done or progress.job.state not in _GOING else "still planning"
    whole = f"≥ {sized(progress.bytes_planned)}" if progress.bytes_total is None else sized(progress.bytes_total)
    if not progress.bytes_planned and not progress.bytes_total:
        return planning
    return ", ".join(
        filter(None, (f"{progress.rows_done:,} rows", f"{sized(progress.bytes_done)} of {whole}", planning))
    )


def progress_line(progress: Progress) -> str:
    """Return the progress in one line, without the job's name."""
    state = progress.job.state
    if progress.job.options.dry_run:
        return "scoring a sample" if state in _GOING else str(state)
    parts = [str(state), done(progress), amount(progress)]
    if progress.rows_per_s and state in _GOING:
        parts.append(f"{progress.rows_per_s:,.0f} rows/s")
    left = span(progress.remaining_s)
    if left and state in _GOING:
        parts.append(f"{left} left")
    if progress.rows_bad:
        parts.append(f"{progress.rows_bad:,} bad")
    return " · ".join(filter(None, parts))


def end_lines(progress: Progress) -> list[str]:
    """Return what is told of a job that has succeeded."""
    job, output = progress.job, progress.job.spec.output
    skipped = f", {progress.rows_skipped:,} skipped" if progress.rows_skipped else ""
    took = f" in {duration((job.finished_at - job.created_at).total_seconds())}" if job.finished_at else ""
    lines = [f"{progress.rows_ok:,} rows scored{skipped}{took}; output: {output}"]
    if progress.rows_bad:
        where = "" if output == STORE else f", which are listed in {output.rstrip('/')}/_errors"
        lines.append(
            f"{progress.rows_bad:,} bad rows{where}; `headrace jobs show {short(job)}` shows why, "
            f"`headrace jobs retry {short(job)}` runs them again"
        )
    return lines
