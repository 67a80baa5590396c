"""What a person reads of a job."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from headrace.cli.commands.jobs.lines import amount, duration, end_lines, percent, progress_line, span
from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.results_store.jobs.progress import Progress
from headrace.results_store.jobs.records import JobRow

BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def progress(state: JobState = JobState.RUNNING, seconds: float = 61, **found: Any) -> Progress:
    """Return the progress of a job that is planned, unless its rows are not known."""
    ok, bad, skipped = (found.get(f"rows_{kind}", 0) for kind in ("ok", "bad", "skipped"))
    job = JobRow(
        id=uuid.UUID(int=0),
        name="reviews",
        spec=ScoreSpec(model="embed", inputs=("/a",), output="s3://bucket/out/"),
        options=JobOptions(),
        version="3",
        package_sha256="",
        state=state,
        plan_done=found.pop("plan_done", True),
        created_at=BEGAN,
        finished_at=BEGAN + dt.timedelta(seconds=seconds) if state is JobState.SUCCEEDED else None,
    )
    defaults: dict[str, Any] = {
        "rows_total": None,
        "rows_done": ok + bad + skipped,
        "rows_ok": ok,
        "rows_bad": bad,
        "rows_skipped": skipped,
        "rows_per_s": 1234.5,
        "bytes_planned": 0,
        "bytes_total": None,
        "bytes_done": 0,
        "bytes_read": 0,
        "part_bytes": 0,
        "shards_waiting": 0,
        "shards_running": 0,
        "shards_done": 0,
        "shards_dropped": 0,
        "share": None,
        "remaining_s": None,
        "workers": [],
    }
    return Progress(job=job, **(defaults | found))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "under 1 s"), (59, "59 s"), (65, "1 min 05 s"), (3700, "1 h 01 min"), (90_000, "1 d 1 h")],
)
def test_times_are_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_range_of_one_time_is_that_time() -> None:
    assert span((5.1, 5.2)) == "5 s"
    assert span((5, 65)) == "5 s to 1 min 05 s"
    assert span(None) == ""


def test_a_hundred_percent_is_not_reached_by_rounding() -> None:
    assert percent(0.99999) == "99.9 %"
    assert percent(1.0) == "100.0 %"


def test_what_is_not_planned_is_at_least_that_much() -> None:
    early = progress(rows_ok=5, bytes_done=1024, bytes_planned=4096, plan_done=False)
    assert amount(early) == "5 rows, 1.0 KiB of ≥ 4.0 KiB, still planning"
    listed = progress(rows_ok=5, bytes_done=1024, bytes_planned=4096, bytes_total=8192, plan_done=False)
    assert amount(listed) == "5 rows, 1.0 KiB of 8.0 KiB, still planning"
    assert amount(progress(rows_ok=5, bytes_done=1024, bytes_total=4096)) == "5 rows, 1.0 KiB of 4.0 KiB"
    assert amount(progress(rows_ok=5, rows_total=10)) == "5 of 10 rows"
    assert amount(progress(plan_done=False)) == "still planning"
    assert amount(progress(JobState.FAILED, plan_done=False)) == ""


def test_a_line_has_the_rate_the_rest_and_the_bad_rows() -> None:
    line = progress_line(progress(share=0.5, remaining_s=(60, 90), rows_ok=498, rows_bad=2, rows_total=1000))
    assert line == "running · 50.0 % · 500 of 1,000 rows · 1,234 rows/s · 1 min 00 s to 1 min 30 s left · 2 bad"


def test_a_paused_job_has_neither_rate_nor_end() -> None:
    line = progress_line(progress(JobState.PAUSED, remaining_s=(60, 90), rows_ok=1, rows_total=2))
    assert "rows/s" not in line
    assert "left" not in line


def test_the_end_says_where_the_output_and_the_bad_rows_are() -> None:
    first, second = end_lines(progress(JobState.SUCCEEDED, rows_ok=10, rows_bad=2, rows_skipped=3))
    assert first == "10 rows scored, 3 skipped in 1 min 01 s; output: s3://bucket/out/"
    assert "s3://bucket/out/_errors" in second
    assert "headrace jobs retry reviews" in second
    assert len(end_lines(progress(JobState.SUCCEEDED, rows_ok=10))) == 1
