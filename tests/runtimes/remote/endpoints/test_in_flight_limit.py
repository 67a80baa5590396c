"""How many batches at a time: found out on simulated servers."""

from __future__ import annotations

import heapq
import itertools

import pytest

from headrace.contracts.package.server import MOST_IN_FLIGHT
from headrace.runtimes.remote.endpoints.in_flight_limit import HOLD_S, START, InFlightLimit


def simulate(
    limit: InFlightLimit, *, parallel: int, run_s: float, seconds: float, refuses_above: int = 10**9
) -> list[int]:
    """Keep a server busy that computes `parallel` batches at a time; return the limits over time."""
    now, waiting = 0.0, 0
    running: list[float] = []
    seen: list[int] = []
    while now < seconds:
        while len(running) + waiting < limit.limit:
            if len(running) + waiting >= refuses_above:
                limit.busy(now)
                break
            if len(running) < parallel:
                heapq.heappush(running, now + run_s)
            else:
                waiting += 1
        now = heapq.heappop(running)
        in_flight = len(running) + waiting + 1
        if waiting:
            waiting -= 1
            heapq.heappush(running, now + run_s)
        limit.ended(now, 32, in_flight)
        seen.append(limit.limit)
    return seen


def test_it_begins_low() -> None:
    assert InFlightLimit().limit == START


@pytest.mark.parametrize("parallel", [1, 2, 4, 8, 16])
def test_it_finds_how_many_a_server_computes_at_a_time(parallel: int) -> None:
    found = simulate(InFlightLimit(), parallel=parallel, run_s=0.02, seconds=15.0)
    assert parallel <= found[-1] <= max(2 * parallel, START)


def test_it_never_leaves_its_bounds() -> None:
    found = simulate(InFlightLimit(), parallel=1000, run_s=0.01, seconds=60.0)
    assert max(found) == MOST_IN_FLIGHT
    assert min(found) >= 1


def test_it_keeps_below_what_the_server_refuses() -> None:
    found = simulate(InFlightLimit(), parallel=100, run_s=0.01, seconds=60.0, refuses_above=6)
    late = found[len(found) // 2 :]
    assert max(late) <= 8
    assert sum(late) / len(late) >= 3


def test_a_busy_server_gets_less_at_once_and_one_burst_counts_once() -> None:
    limit = InFlightLimit()
    limit.limit = 20
    for _ in range(20):
        limit.busy(1.0)
    assert limit.limit == 14
    for now in range(2, 40):
        limit.busy(float(now))
    assert limit.limit == 1


def test_what_did_not_pay_is_tried_again_only_after_a_while() -> None:
    limit = InFlightLimit()
    seen = simulate(limit, parallel=2, run_s=0.05, seconds=HOLD_S * 0.8)
    rises = sum(after > before for before, after in itertools.pairwise(seen))
    assert rises == 1
    assert seen[-1] == 2


def test_a_little_load_changes_nothing() -> None:
    limit = InFlightLimit()
    for step in range(1000):
        limit.ended(step * 0.01, 1, 1)
    assert limit.limit == START


def test_a_number_that_was_set_stays() -> None:
    limit = InFlightLimit(5)
    limit.busy(1.0)
    for step in range(1000):
        limit.ended(step * 0.01, 1, 5)
    assert limit.limit == 5
