"""What a run says: figures for people, and whether anything was wrong."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.check import Verdict
from tests.chaos.kill_points import POINTS
from tests.chaos.logs import SPAN_S
from tests.chaos.schedule import Kind
from tests.chaos.wire.notice import Notice
from tests.chaos.worker_slot import Death, WorkerSlot

#: A killed worker's requests must be running again within the lease and this, by the promise of the queue.
REAP_S: Final = 15.0

#: A worker may grow by so much after it has become warm: what it holds is bounded in bytes, however long a server is
#: away and however large outputs are. Most of it are outputs that wait for Postgres, and their encoded copies; with the
#: small outputs of an ordinary run that is less.
MOST_GROWTH_BYTES: Final = 200 << 20
MOST_GROWTH_LARGE_BYTES: Final = 300_000_000

#: A worker may log so many warnings in 10 s; all that is broken in this time says so once.
MOST_WARNINGS: Final = 60


@dataclass
class Report:
    """Figures of one run. wanted: how often each fault must happen. most_growth_bytes: of a worker's memory."""

    requests: int
    seed: int
    workers: int
    lease_s: float
    wanted: Mapping[Kind, int] = field(default_factory=dict)
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)
    faults: Counter[Kind] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    settled: Mapping[str, int] = field(default_factory=dict)
    left_over: Mapping[str, int] = field(default_factory=dict)
    left_behind: int = 0
    unmet_points: int = 0
    failed_starts: int = 0
    held_by_the_dead: int = 0
    outages: Sequence[tuple[float, float]] = ()
    most_bytes: int = 0
    grown_bytes: int = 0
    most_growth_bytes: int = MOST_GROWTH_BYTES
    warnings: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    notice: Notice = field(default_factory=Notice)
    tasks_sent: Set[int] = frozenset()
    tasks_ran: Set[int] = frozenset()

    @staticmethod
    def say(line: str) -> None:
        """Tell people where the run is."""
        print(line, file=sys.stderr, flush=True)

    def add_slots(self, slots: Sequence[WorkerSlot], plain_slots: Sequence[WorkerSlot]) -> None:
        """Take what the workers' places have seen; kills count where they were seen, not where they were ordered."""
        self.faults[Kind.KILL] = sum(slot.random_kills for slot in slots)
        for slot in (*slots, *plain_slots):
            self.points += slot.points
            self.problems += slot.surprises
            self.failed_starts += slot.failed_starts
        self.faults[Kind.KILL_AT] = self.points.total()

    def add_deaths(self, deaths: Sequence[Death]) -> None:
        """Measure, for each request that a killed worker held, when it had run elsewhere.

        One that the next worker held when it was killed too counts from the last of these kills. The time in
        which a server was away, cut off or full, so that nothing could recover, doesn't count.
        """
        killed_at: dict[str, float] = {}
        for death in sorted(deaths, key=lambda death: death.at):
            self.held_by_the_dead += len(death.held)
            for request_id in death.held:
                if self.verdict.finished_at.get(request_id, 0.0) > death.at:
                    killed_at[request_id] = death.at
        self.recoveries_s = [
            _without(self.outages, at, self.verdict.finished_at[each]) for each, at in killed_at.items()
        ]

    @property
    def is_clean(self) -> bool:
        """Whether all that was promised was kept."""
        return not list(self.faults_found())

    def faults_found(self) -> Iterator[str]:
        """Say everything that is wrong."""
        yield from self.problems
        yield from self.verdict.problems()
        if self.verdict.accepted < self.requests:
            yield f"only {self.verdict.accepted:,} of {self.requests:,} requests were accepted"
        if self.left_behind:
            yield f"{self.left_behind} waiters were left behind"
        for when, left in (("after the last answer", self.settled), ("after the workers' end", self.left_over)):
            yield from (f"{when}: {count} {what}" for what, count in left.items() if count)
        yield from (f"never happened: {kind}" for kind, count in self.wanted.items() if count and not self.faults[kind])
        points = POINTS if self.wanted.get(Kind.KILL_AT) else ()
        yield from (f"no worker died at: {point}" for point in points if not self.points[point])
        if self.unmet_points:
            yield f"{self.unmet_points} times no worker came to the point at which it was to die"
        if max(self.recoveries_s, default=0.0) > self.lease_s + REAP_S:
            yield f"a killed worker's requests ran again only after {max(self.recoveries_s):.1f} s"
        if self.grown_bytes > self.most_growth_bytes:
            yield f"a worker grew by {self.grown_bytes / 1e6:.0f} MB; at most {self.most_growth_bytes / 1e6:.0f} MB"
        yield from self.notice.late
        yield from self._lost_tasks()
        if self.warnings > MOST_WARNINGS:
            yield f"a worker logged {self.warnings} warnings in {SPAN_S:.0f} s"

    def _lost_tasks(self) -> Iterator[str]:
        if not self.tasks_ran:
            yield "no ordinary task ran"
        if never_ran := self.tasks_sent - self.tasks_ran:
            yield f"{len(never_ran)} ordinary tasks were lost, number {min(never_ran)} for one"

    def text(self) -> str:
        """Give the whole report."""
        return "\n".join([*self._figures(), *self._outcome()])

    def _figures(self) -> Iterator[str]:
        verdict = self.verdict
        rate = verdict.accepted / self.seconds if self.seconds else 0.0
        yield f"requests         {verdict.accepted:,} accepted in {self.seconds:.0f} s, {rate:,.0f}/s; seed {self.seed}"
        yield f"workers          {self.workers}, lease {self.lease_s:g} s"
        yield f"faults           {self.faults.total():,}"
        for kind in Kind:
            if self.wanted.get(kind) or self.faults[kind]:
                yield f"  {self.faults[kind]:>5}  {kind}"
            if kind is Kind.KILL_AT:
                yield from (f"         {self.points[point]:>5}  {point}" for point in POINTS)
        yield f"failed starts    {self.failed_starts} (a server was away; started again)"
        yield f"held by the dead {self.held_by_the_dead:,} requests at the moment their worker was killed"
        yield f"redelivered      {verdict.redelivered:,} rows with more than one attempt"
        yield f"other ends       {verdict.without_value:,} failed, cancelled or expired as they should"
        slowest = max(self.recoveries_s, default=0.0)
        most_mb, grown_mb = self.most_bytes / 1e6, self.grown_bytes / 1e6
        yield f"memory           a worker takes {most_mb:.0f} MB at most, {grown_mb:.1f} MB more than when it was new"
        yield f"busiest log      {self.warnings} warnings and errors of a worker in {SPAN_S:.0f} s"
        yield f"refused rows     {verdict.refused:,} requests whose row Postgres refuses, each with some SQLSTATE"
        notice = self.notice
        yield f"frozen           {notice.frozen:,} connections, which swallowed {notice.swallowed_bytes:,} bytes"
        yield f"slowest notice   {notice.slowest_s:.1f} s from the first of these bytes until a connection was given up"
        yield f"ordinary tasks   {len(self.tasks_sent):,} sent, {len(self.tasks_sent - self.tasks_ran)} never ran"
        yield f"slowest recovery {slowest:.1f} s from the kill of a worker until what it held had run elsewhere"

    def _outcome(self) -> Iterator[str]:
        verdict = self.verdict
        yield f"lost             {len(verdict.lost)}"
        yield f"doubled          {len(verdict.doubled)}"
        yield f"wrong            {len(verdict.wrong)}"
        yield f"no answer        {len(verdict.unanswered)}; {self.left_behind} waiters left behind"
        yield "left over        " + ", ".join(f"{count} {what}" for what, count in self.left_over.items())
        found = list(self.faults_found())
        yield "PASSED" if not found else "FAILED"
        yield from (f"  {line}" for line in found)


def _without(outages: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Give the seconds between two times that lie in none of these spans, which may overlap."""
    left_s, reached = 0.0, start
    for first, last in sorted(outages):
        left_s += max(0.0, min(first, end) - reached)
        reached = max(reached, min(last, end))
    return left_s + max(0.0, end - reached)
