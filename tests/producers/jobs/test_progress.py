"""Estimates: never down, never whole before publication, a range that holds the truth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.producers.jobs.progress import Counts, Estimator

readings = st.lists(
    st.builds(
        Counts,
        rows_ok=st.integers(0, 10**9),
        rows_bad=st.integers(0, 10**6),
        rows_total=st.integers(-1, 10**9),
        bytes_done=st.integers(0, 10**12),
        bytes_total=st.integers(0, 10**12),
        planned=st.booleans(),
        active_s=st.floats(0, 1e6),
    ),
    max_size=20,
)


@given(readings, st.lists(st.floats(0, 100), min_size=20, max_size=20))
def test_progress_never_goes_down_and_is_whole_only_after_publication(seen: list[Counts], steps: list[float]) -> None:
    estimator, now, last = Estimator(), 0.0, 0.0
    for counts, step in zip(seen, steps, strict=False):
        now += step
        found = estimator.take(now, counts)
        assert last <= found.share < 1
        assert found.eta_s is None or 0 <= found.eta_s[0] <= found.eta_s[1]
        assert found.rows_per_s >= 0
        last = found.share
    assert estimator.take(now, Counts(published=True)).share == 1


@given(rate=st.floats(1, 1e5), share=st.floats(0.05, 0.95))
def test_the_end_of_steady_work_lies_in_the_range(rate: float, share: float) -> None:
    total, estimator = round(rate * 1000) + 1000, Estimator()
    end_s = total / rate
    for second in range(0, 60, 2):
        at = share * end_s + second
        counts = Counts(rows_ok=int(min(at * rate, total)), rows_total=total, planned=True, active_s=at)
        found = estimator.take(at, counts)
    left = max(0.0, end_s - at)
    if found.eta_s is not None and left > 1:
        assert found.eta_s[0] <= left * 1.05 + 1
        assert left <= found.eta_s[1] * 1.05 + 1


def test_nothing_is_foretold_while_inputs_are_still_listed() -> None:
    counts = Counts(rows_ok=500, bytes_done=50, bytes_total=100, active_s=30)
    assert Estimator().take(30, counts).eta_s is None
    assert Estimator().take(30, counts).share == 0.5


def test_a_job_without_rows_is_whole_when_it_is_published() -> None:
    assert Estimator().take(0, Counts(rows_total=0, planned=True)).share == 0
    assert Estimator().take(0, Counts(rows_total=0, planned=True, published=True)).share == 1
