"""Tries candidates against each other, so that what is compared later is each side at its best."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from online_parts.measure import Rate
from online_parts.plan import Plan

#: From this many CPUs busy with other work on, a try says little and is repeated.
BUSY_CPUS = 0.3

#: So often at most: on a machine that never rests the best of what there is must do.
REPEATS = 3

#: A try that turned out too short is made longer: by a little more than it lacked, and at most by so much, for
#: a short one tells little about the rate.
MARGIN, MOST_GROWTH = 1.25, 4.0

Candidate = TypeVar("Candidate", bound=Hashable)


class Tries:
    """Runs of one kind; each candidate's number of requests grows until a run of it lasts `plan.try_s`."""

    def __init__(self, plan: Plan, requests: int, say: Callable[[str], None]) -> None:
        """requests: the number to begin with. say: told of every try that counts."""
        self._plan, self._requests, self._say = plan, requests, say
        self._grown: dict[Hashable, int] = {}

    def rates(
        self, candidates: Sequence[Candidate], run: Callable[[Candidate, int], Rate], title: str
    ) -> dict[Candidate, float]:
        """Give the requests/s of each candidate's best try: noise only slows. run: is given the number of requests."""
        found = dict.fromkeys(candidates, 0.0)
        for _ in range(self._plan.passes):
            for candidate in candidates:
                per_s = self._undisturbed(candidate, run)
                found[candidate] = max(found[candidate], per_s)
                self._say(f"  {title}, {candidate}: {per_s:,.0f}/s")
        return found

    def _undisturbed(self, candidate: Candidate, run: Callable[[Candidate, int], Rate]) -> float:
        rate = self._long_enough(candidate, run)
        best = rate.per_s
        for _ in range(REPEATS):
            if rate.others_cpus <= BUSY_CPUS:
                break
            rate = self._long_enough(candidate, run)
            best = max(best, rate.per_s)
        return best

    def _long_enough(self, candidate: Candidate, run: Callable[[Candidate, int], Rate]) -> Rate:
        count = self._grown.get(candidate, self._requests)
        while (rate := run(candidate, count)).seconds < self._plan.try_s:
            count = int(count * min(MOST_GROWTH, MARGIN * self._plan.try_s / rate.seconds)) + 1
            self._grown[candidate] = count
        return rate


def best_of_each(rates: dict[Candidate, float], kind: Callable[[Candidate], Hashable]) -> list[Candidate]:
    """Give the fastest candidate of each kind, the fastest of all first."""
    found: dict[Hashable, Candidate] = {}
    for candidate in sorted(rates, key=rates.__getitem__, reverse=True):
        found.setdefault(kind(candidate), candidate)
    return list(found.values())
