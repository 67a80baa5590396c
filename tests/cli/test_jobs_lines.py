"""What a person reads of a job."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.cli.commands.jobs.lines import amount, duration, end_lines, percent, progress_line, span
from headrace.producers.jobs.progress import Counts, Progress


def progress(state: str = "running", share: float = 0.5, eta_s: Any = None, **counts: Any) -> Progress:
    return Progress(
        id="0" * 32,
        name="reviews",
        model="embed",
        version="3",
        state=state,
        output="s3://bucket/out/",
        counts=Counts(**counts),
        share=share,
        rows_per_s=1234.5,
        eta_s=eta_s,
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (65, "1 min 05 s"), (3700, "1 h 01 min"), (90_000, "1 d 1 h")]
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
    early = Counts(rows_ok=5, bytes_done=1024, bytes_total=4096)
    assert amount(early) == "5 rows, 1.0 KiB of ≥ 4.0 KiB, still planning"
    assert amount(Counts(rows_ok=5, rows_total=10, planned=True)) == "5 of 10 rows"
    assert amount(Counts(rows_ok=5, bytes_done=1024, bytes_total=4096, planned=True)) == "5 rows, 1.0 KiB of 4.0 KiB"


def test_a_line_has_the_rate_the_rest_and_the_bad_rows() -> None:
    line = progress_line(progress(eta_s=(60, 90), rows_ok=498, rows_bad=2, rows_total=1000, planned=True))
    assert line == "running · 50.0 % · 500 of 1,000 rows · 1,234 rows/s · 1 min 00 s to 1 min 30 s left · 2 bad"


def test_a_paused_job_has_neither_rate_nor_end() -> None:
    line = progress_line(progress("paused", eta_s=(60, 90), rows_ok=1, rows_total=2, planned=True))
    assert "rows/s" not in line
    assert "left" not in line


def test_the_end_says_where_the_output_and_the_bad_rows_are() -> None:
    first, second = end_lines(progress("succeeded", 1.0, rows_ok=10, rows_bad=2, rows_skipped=3, active_s=61))
    assert first == "10 rows scored, 3 skipped in 1 min 01 s; output: s3://bucket/out/"
    assert "s3://bucket/out/_errors" in second
    assert "headrace jobs retry reviews" in second
    assert len(end_lines(progress("succeeded", 1.0, rows_ok=10))) == 1
