"""A discrete-event simulation of one executor behind a MicroBatcher; every moment is exact, nothing sleeps."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean

from headrace.workers.batching import BatchPolicy, CostModel, Item, MicroBatcher


@dataclass(frozen=True)
class Device:
    """Takes `fixed_s + row_s·rows` for a run, times a random factor within ± noise."""

    fixed_s: float
    row_s: float
    noise: float = 0.02

    def run_s(self, rows: int, chance: random.Random) -> float:
        return (self.fixed_s + self.row_s * rows) * (1 + chance.uniform(-self.noise, self.noise))


@dataclass
class Outcome:
    """What became of the requests: seconds from arrival to the end of the run, and rows of each batch."""

    latencies_s: list[float] = field(default_factory=list)
    batch_rows: list[int] = field(default_factory=list)
    #: Seconds that the executor stood idle although requests waited: the waits for company.
    waited_s: float = 0.0
    waits: int = 0
    ended_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """Mean latency of the second half, when the cost model and the watch have learned."""
        return fmean(self.latencies_s[len(self.latencies_s) // 2 :])

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.ended_s


def poisson(rate: float, requests: int, seed: int = 1) -> Iterator[float]:
    """Give the arrivals of a Poisson process."""
    chance = random.Random(seed)
    now = 0.0
    for _ in range(requests):
        now += chance.expovariate(rate)
        yield now


def bursts(every_s: float, size: int, spread_s: float, requests: int, seed: int = 1) -> Iterator[float]:
    """Give arrivals in bursts of `size` requests within `spread_s` seconds."""
    chance = random.Random(seed)
    for burst in range(requests // size):
        yield from sorted(burst * every_s + chance.random() * spread_s for _ in range(size))


class Simulation:
    """One executor; requests come from a list of arrivals, or from clients that ask again after each reply."""

    def __init__(self, device: Device, policy: BatchPolicy, *, cost: CostModel | None = None, seed: int = 2) -> None:
        self.device = device
        self.cost = cost or CostModel()
        self.batcher = MicroBatcher[int](policy, self.cost)
        self.outcome = Outcome()
        self.chance = random.Random(seed)
        self.busy = False
        self.declined_at: float | None = None
        self.events: list[tuple[float, int, str, list[Item[int]]]] = []
        self.numbers = count()
        #: Clients only: how long the reply and the next request travel, at least and at most; how many to send.
        self.travel_s = (0.0, 0.0)
        self.to_send = 0

    def run(self, arrivals: Iterable[float]) -> Outcome:
        for number, at in enumerate(arrivals):
            self.plan(at, "arrive", [Item(number, 1, 0, None, at)])
        while self.events:
            now, _, kind, items = heapq.heappop(self.events)
            getattr(self, kind)(now, items)
        return self.outcome

    def run_clients(self, clients: int, requests: int, travel_s: tuple[float, float]) -> Outcome:
        """Let each of some clients have one request under way at any time."""
        self.travel_s, self.to_send = travel_s, requests - clients
        return self.run(sorted(self.chance.uniform(*travel_s) for _ in range(clients)))

    def plan(self, at: float, kind: str, items: list[Item[int]]) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), kind, items))

    def arrive(self, now: float, items: list[Item[int]]) -> None:
        self.batcher.put_many(items)
        self.ask(now)

    def wake(self, now: float, _: list[Item[int]]) -> None:
        self.ask(now)

    def complete(self, now: float, items: list[Item[int]]) -> None:
        self.busy = False
        self.outcome.ended_s = now
        for item in items:
            self.outcome.latencies_s.append(now - item.arrived)
            if self.to_send > 0:
                self.to_send -= 1
                at = now + self.chance.uniform(*self.travel_s)
                self.plan(at, "arrive", [Item(0, 1, 0, None, at)])
        self.ask(now)

    def ask(self, now: float) -> None:
        if self.busy or not len(self.batcher):
            return
        batch = self.batcher.take(now)
        if batch is None:
            self.declined_at = now if self.declined_at is None else self.declined_at
            at = self.batcher.wake_at(now)
            assert at is not None
            assert at > now
            self.plan(at, "wake", [])
            return
        if self.declined_at is not None:
            self.outcome.waits += 1
            self.outcome.waited_s += now - self.declined_at
            self.declined_at = None
        self.busy = True
        seconds = self.device.run_s(batch.rows, self.chance)
        self.cost.observe(batch.rows, seconds)
        self.outcome.batch_rows.append(batch.rows)
        self.plan(now + seconds, "complete", batch.items)
