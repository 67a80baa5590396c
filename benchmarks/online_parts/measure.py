"""The measurements, the same code for both sides."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass

from online_parts.agent import Agent
from online_parts.processes import cpu_seconds, machine_cpu_seconds
from online_parts.servers import Servers
from online_parts.side import Side

#: How often progress is read. Each reading costs Valkey some 20 µs.
POLL_S = 0.01

#: The first part of a drain is start-up and is not measured.
WARM_UP = 0.1

#: A run without any progress for so long has failed.
STALL_S = 60.0


class Stalled(Exception):
    """A side stopped making progress."""


@dataclass(frozen=True)
class Rate:
    """One run. Everything is per request, CPU in seconds by process tree.

    others_cpus: how many CPUs were busy with anything but this run; above 0.1 or so the rate is too low.
    """

    requests: int
    per_s: float
    worker_cpu_s: float
    valkey_cpu_s: float
    postgres_cpu_s: float
    round_trips: float
    others_cpus: float
    submit_per_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.requests / self.per_s


@dataclass(frozen=True)
class Meter:
    """Reads clocks and counters of one side at one moment."""

    servers: Servers
    side: Side
    worker_pid: int
    client_pids: tuple[int, ...] = ()

    def read(self) -> tuple[float, ...]:
        counters = self.side.probe.counters()
        return (
            time.perf_counter(),
            cpu_seconds(self.worker_pid),
            cpu_seconds(self.servers.valkey_pid),
            cpu_seconds(self.servers.postgres_pid),
            counters.reads,
            counters.writes,
            machine_cpu_seconds(),
            sum(cpu_seconds(pid) for pid in self.client_pids) + time.process_time(),
        )


def _rate(requests: int, start: tuple[float, ...], end: tuple[float, ...], submit_per_s: float = 0.0) -> Rate:
    seconds, worker, valkey, postgres, reads, writes, busy, rest = (b - a for a, b in zip(start, end, strict=True))
    return Rate(
        requests=requests,
        per_s=requests / seconds,
        worker_cpu_s=worker / requests,
        valkey_cpu_s=valkey / requests,
        postgres_cpu_s=postgres / requests,
        round_trips=min(reads, writes) / requests,
        others_cpus=max(0.0, busy - worker - valkey - postgres - rest) / seconds,
        submit_per_s=submit_per_s,
    )


def wait_done(side: Side, total: int, at_least: int) -> int:
    """Wait until `at_least` of `total` results are stored; give how many are. Raises Stalled."""
    last, moved = -1, time.perf_counter()
    while (done := side.done(total)) < at_least:
        now = time.perf_counter()
        if done != last:
            last, moved = done, now
        elif now - moved > STALL_S:
            raise Stalled(f"{side.name} ({side.describe()}) stopped at {done} of {total} results")
        time.sleep(POLL_S)
    return done


class Backlog:
    """A queue filled once through the side's own client and put back for each drain."""

    def __init__(self, side: Side, count: int) -> None:
        self._side, self.count = side, count
        side.clear()
        with side.client() as client:
            client.do(op="submit", first=0, count=min(64, count))
            side.clear()
            before = side.probe.counters()
            answer = client.do(op="submit", first=0, count=count)
            after = side.probe.counters()
        self.sample = [tuple(pair) for pair in answer["sample"]]
        self.submit_per_s = count / answer["seconds"]
        self.submit_round_trips = after.round_trips_since(before) / count
        side.keep_queue()
        side.clear()

    def drain(self, servers: Servers, side: Side | None = None, count: int | None = None) -> Rate:
        """Fill the queue, start the workers, and measure from the first tenth of the results to the last.

        side: whose workers, if not those of the side that filled it. count: how many of the requests, if not all.
        """
        side, count = side or self._side, count or self.count
        side.clear()
        servers.settle()
        side.refill_queue(count)
        with side.worker() as worker:
            meter = Meter(servers, side, worker.pid)
            first = wait_done(side, count, max(1, int(count * WARM_UP)))
            start = meter.read()
            wait_done(side, count, count)
            end = meter.read()
        side.verify([(index, request_id) for index, request_id in self.sample if index < count], count)
        # At least one: a tiny run may be over between two readings. Its figures mean nothing, but it has run.
        return _rate(max(1, count - first), start, end, self.submit_per_s)


def live(servers: Servers, side: Side, count: int, producers: int) -> Rate:
    """Run producers and workers at once; measure from the word go to the last stored result."""
    side.clear()
    servers.settle()
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(side.worker())
        clients = [stack.enter_context(side.client()) for _ in range(producers)]
        warmed = warm_up(side, clients)
        share = count // producers
        total = warmed + share * producers
        meter = Meter(servers, side, worker.pid, tuple(client.pid for client in clients))
        start = meter.read()
        for number, client in enumerate(clients):
            client.begin(op="submit", first=number * share, count=share)
        answers = [client.answer() for client in clients]
        wait_done(side, total, total)
        end = meter.read()
    sample = [tuple(pair) for answer in answers for pair in answer["sample"]]
    side.verify(sample, total)
    return _rate(share * producers, start, end, share * producers / max(answer["seconds"] for answer in answers))


def warm_up(side: Side, clients: list[Agent], asks: int = 20, submits: int = 200) -> int:
    """Have the workers load, connect and answer; give how many requests that took."""
    for client in clients:
        client.do(op="ask", first=0, count=asks)
        client.do(op="submit", first=0, count=submits)
    total = len(clients) * (asks + submits)
    wait_done(side, total, total)
    return total


def ready(stack: contextlib.ExitStack, side: Side) -> Agent:
    """Start a side's workers and one client, warmed up; other sides' workers may be up too, and wait when not asked."""
    side.clear()
    stack.enter_context(side.worker())
    client = stack.enter_context(side.client())
    warm_up(side, [client])
    return client


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Draw Poisson arrivals, in seconds from the start."""
    source, at, times = random.Random(seed), 0.0, []
    while (at := at + source.expovariate(rate_per_s)) < seconds:
        times.append(at)
    return times


def percentile(values: list[float], share: float) -> float:
    """Give the value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
