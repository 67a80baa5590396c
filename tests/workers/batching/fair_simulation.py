"""Workers, queues and doorbells in simulated time, around the real window, batchers and cost models."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from headrace.workers.batching import BatchPolicy, CostModel, Item, MicroBatcher
from headrace.workers.batching.prefetch import Running, goes_back
from headrace.workers.intake.window import Window

#: A claim, with reading what it brought.
IDEAL_CLAIM_S = 0.001

#: No world takes longer.
LONGEST_S = 1000.0

#: No timer is more exact.
TIMER_S = 0.001

#: How often a worker looks whether its batch is late.
WATCH_S = 0.05


@dataclass(frozen=True)
class Model:
    """A model whose batches take the same time, however full; or, every tenth of a worker's, another."""

    name: str
    batch_rows: int
    batch_s: float
    every_tenth_s: float | None = None

    def seconds(self, number: int) -> float:
        return self.every_tenth_s if self.every_tenth_s is not None and number % 10 == 9 else self.batch_s


@dataclass(eq=False)
class Request:
    model: str
    sent_at: float
    number: int
    began_at: float = math.nan
    done_at: float = math.nan
    put_back: int = 0


class SimulatedLane:
    """What the window asks of a lane."""

    concurrent = False
    put_off_until = 0.0
    is_away = False

    def __init__(self, model: Model) -> None:
        self.model = model
        self.queue = model.name
        self.max_rows = model.batch_rows
        self.cost = CostModel()
        self.batcher: MicroBatcher[Request] = MicroBatcher(BatchPolicy(model.batch_rows, 0.0), self.cost)
        self.parked_rows = 0
        self.batches = 0


class SimulatedLanes:
    def __init__(self, models: list[Model]) -> None:
        self.lanes = {model.name: [SimulatedLane(model)] for model in models}

    def of_queue(self, queue: str) -> list[SimulatedLane]:
        return self.lanes[queue]

    def all(self) -> list[SimulatedLane]:
        return [lane for lanes in self.lanes.values() for lane in lanes]


@dataclass(eq=False)
class Worker:
    """One worker; `World` calls it."""

    running: Running | None = None
    wants: dict[str, int] = field(default_factory=dict)
    claiming: bool = False
    turn: int = 0
    opens_at: float = 0.0

    def join(self, world: World, models: list[Model]) -> None:
        self.world = world
        self.lanes = SimulatedLanes(models)
        self.window = Window(self.lanes, lambda: self.running)  # type: ignore[arg-type]

    def look_for_room(self) -> None:
        """Claim, or wait for the doorbells of what may be claimed."""
        if self.claiming:
            return
        world = self.world
        delay_s = self.window.opens_in_s(world.now)
        if delay_s > 0:
            self.wants = {}
            opens_at = world.now + max(delay_s, TIMER_S)
            if delay_s < math.inf and not world.now < self.opens_at <= opens_at:
                self.opens_at = opens_at
                world.at(opens_at - world.now, self.look_for_room)
            return
        self.wants = {queue: room for queue in world.queues if (room := self.window.room(queue)) > 0}
        if any(world.queues[queue] for queue in self.wants):
            self.claim()

    def claim(self) -> None:
        self.claiming = True
        wants, self.wants = self.wants, {}
        taken = self.world.take(wants)
        self.world.at(IDEAL_CLAIM_S, lambda: self.deliver(taken))

    def deliver(self, requests: list[Request]) -> None:
        self.claiming = False
        now = self.world.now
        if self.running is not None and goes_back(self.running.rest_s(now)):
            self.world.put_back(requests)
        else:
            for request in requests:
                self.window.admit(request.model, 1)
                (lane,) = self.lanes.of_queue(request.model)
                lane.batcher.put(Item(request, 1, 0, None, now))
            self.begin()
        self.look_for_room()

    def begin(self) -> None:
        lanes = self.lanes.all()
        for offset in range(len(lanes) if self.running is None else 0):
            at = (self.turn + offset) % len(lanes)
            batch = lanes[at].batcher.take(self.world.now)
            if batch is not None:
                self.turn = at + 1
                self.run(lanes[at], [item.payload for item in batch.items])
                return

    def run(self, lane: SimulatedLane, requests: list[Request]) -> None:
        world = self.world
        self.window.taken(lane.queue, len(requests))
        self.running = Running(world.now, lane.cost.predict(len(requests)) or math.inf)
        takes_s = lane.model.seconds(lane.batches)
        lane.batches += 1
        for request in requests:
            request.began_at, request.done_at = world.now, world.now + takes_s
        world.begun += len(requests)
        world.long_batches += goes_back(self.running.seconds)
        self.take_back(self.running)
        world.at(takes_s, lambda: self.end(lane, len(requests), takes_s))

    def take_back(self, running: Running) -> None:
        """Put back what waits if the batch is long, or late; and look again."""
        if running is not self.running:
            return
        if goes_back(running.rest_s(self.world.now)):
            back = [item.payload for lane in self.lanes.all() for item in lane.batcher.remove(lambda _: True)]
            for request in back:
                self.window.withdraw(request.model, 1)
            self.world.put_back(back)
        self.world.at(WATCH_S, lambda: self.take_back(running))

    def end(self, lane: SimulatedLane, rows: int, took_s: float) -> None:
        lane.cost.observe(rows, took_s)
        self.running = None
        self.begin()
        self.look_for_room()


class World:
    """Simulated time, and one queue for each model."""

    def __init__(self, workers: list[Worker], models: list[Model]) -> None:
        self.now = 0.0
        self.long_batches = 0
        self.begun = 0
        self.queues: dict[str, deque[Request]] = {model.name: deque() for model in models}
        self._workers = workers
        self._requests: list[Request] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for worker in workers:
            worker.join(self, models)
            self.at(0.0, worker.look_for_room)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), action))

    def send(self, model: str, *, at: float, count: int) -> None:
        requests = [Request(model, at, next(self._numbers)) for _ in range(count)]
        self._requests += requests
        self.at(at, lambda: self._arrive(requests))

    def _arrive(self, requests: list[Request]) -> None:
        for request in requests:
            self.queues[request.model].append(request)
        self._ring(requests[0].model)

    def take(self, wants: dict[str, int]) -> list[Request]:
        """Claim; rings again where something is left."""
        taken = []
        for queue, room in wants.items():
            waiting = self.queues[queue]
            taken += [waiting.popleft() for _ in range(min(room, len(waiting)))]
        for queue in wants:
            if self.queues[queue]:
                self.at(0.0, partial(self._ring, queue))
        return taken

    def put_back(self, requests: list[Request]) -> None:
        """Put requests back at the head of their queues, in order."""
        for request in sorted(requests, key=lambda request: request.number, reverse=True):
            request.put_back += 1
            self.queues[request.model].appendleft(request)
        for queue in dict.fromkeys(request.model for request in requests):
            self.at(IDEAL_CLAIM_S, partial(self._ring, queue))

    def _ring(self, queue: str) -> None:
        """Wake the worker that has waited longest for this queue."""
        for worker in self._workers:
            if queue in worker.wants and not worker.claiming:
                self._workers.remove(worker)
                self._workers.append(worker)
                worker.claim()
                return

    def run_until_done(self) -> None:
        while self.begun < len(self._requests):
            self.now, _, action = heapq.heappop(self._events)
            action()
            assert self.now < LONGEST_S, "some request never begins"

    def makespan_s(self, model: str) -> float:
        return max(request.done_at for request in self._of(model)) - min(r.sent_at for r in self._of(model))

    def waits_s(self, model: str) -> list[float]:
        """From sending to the answer."""
        return [request.done_at - request.sent_at for request in self._of(model)]

    def starts_after_s(self, model: str) -> list[float]:
        return [request.began_at - request.sent_at for request in self._of(model)]

    def put_back_counts(self) -> list[int]:
        return [request.put_back for request in self._requests]

    def _of(self, model: str) -> list[Request]:
        return [request for request in self._requests if request.model == model]
