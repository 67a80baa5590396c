"""A worker's place: keeps one worker process in it, as a supervisor would, and knows how each of them died."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.fork_server import ForkServer, WorkerProcess

#: A worker that can't start (a server is away) is started again after this time.
RESTART_S: Final = 0.5

#: A worker that could not be killed, because it was dying already, has a successor after about this time.
AGAIN_S: Final = 0.1

#: A worker that was told to end has its grace and this to do it.
END_MARGIN_S: Final = 20.0


@dataclass
class Death:
    """A worker that was killed. point: "" for a random moment. consumers: the names under which it held messages."""

    at: float
    slot: int
    point: str
    consumers: list[str]
    held: set[str] = field(default_factory=set)


class WorkerSlot:
    """One worker process after the other. on_death: called in the slot's thread, before the next is started."""

    def __init__(
        self, index: int, name: str, fork_server: ForkServer, log: Path, on_death: Callable[[Death], None]
    ) -> None:
        """name: of the worker; `plain-…` is an ordinary Celery worker."""
        self.index = index
        self.name = name
        self.ready = threading.Event()
        self.points: Counter[str] = Counter()
        self.random_kills = 0
        self.surprises: list[str] = []
        self.failed_starts = 0
        self._fork_server = fork_server
        self._log = log
        self._on_death = on_death
        self._orders: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None
        self._ending = self._closing = False
        self._thread = threading.Thread(target=self._keep, name=f"chaos-slot-{index}", daemon=True)

    def start(self) -> None:
        """Start the first process."""
        self._thread.start()

    def arm(self, point: str, nth: int) -> None:
        """Have the worker die at the n-th passage of a point; if it dies before of something else, its successor."""
        with self._lock:
            self._orders.append((point, nth))
            if len(self._orders) == 1:
                self._send_order()

    @property
    def armed(self) -> int:
        """How many orders to die are still open."""
        return len(self._orders)

    @property
    def next_point(self) -> str:
        """The point at which the process, or its successor, is to die next; empty without orders."""
        with self._lock:
            return self._orders[0][0] if self._orders else ""

    @property
    def pid(self) -> int | None:
        """The process id of a worker that is ready."""
        process = self._process
        return process.pid if process is not None and self.ready.is_set() else None

    def kill(self, patience_s: float) -> bool:
        """Kill whatever runs now.

        A process that is dying of something else just then is not killed by this: its successor is. False when the
        time is up first.
        """
        ends_at = time.monotonic() + patience_s
        while time.monotonic() < ends_at:
            process = self._process
            if process is not None and process.kill() and process.ended.wait(patience_s) and process.was_killed:
                return True
            time.sleep(AGAIN_S)
        return False

    def pause(self, seconds: float, patience_s: float) -> bool:
        """Stop the process, once it is ready, for some time, as a frozen machine would; False when the time is up."""
        ends_at = time.monotonic() + patience_s
        while self.ready.wait(max(0.0, ends_at - time.monotonic())) and time.monotonic() < ends_at:
            process = self._process
            if process is not None and process.signal(signal.SIGSTOP):
                time.sleep(seconds)
                process.signal(signal.SIGCONT)
                return True
        return False

    def set_clock(self, off_s: float, patience_s: float) -> bool:
        """Set the wall clock of a worker that is ready so many seconds off; False when the time is up."""
        if not self.ready.wait(patience_s):
            return False
        process = self._process
        if process is not None:
            process.order(f"clock {off_s}")
        return True

    def roll(self, grace_s: float, ready_s: float) -> bool:
        """Tell the process to end; False when its successor isn't ready in time."""
        with self._lock:
            process = self._process
            self._ending = True
            self.ready.clear()
        self._end(process, grace_s)
        return self.ready.wait(ready_s)

    def close(self, grace_s: float) -> None:
        """End the process for good."""
        with self._lock:
            self._closing = self._ending = True
        self._end(self._process, grace_s)
        self._thread.join(END_MARGIN_S)

    def _end(self, process: WorkerProcess | None, grace_s: float) -> None:
        if process is None or not process.signal(signal.SIGTERM):
            return
        if not process.ended.wait(grace_s + END_MARGIN_S):
            self.surprises.append(f"{self.name} (pid {process.pid}) did not end after SIGTERM")
            process.signal(signal.SIGKILL)
            process.ended.wait()

    def _keep(self) -> None:
        while not self._closing:
            process = self._spawn()
            consumers, point, was_ready = self._listen(process.news)
            code = process.reap(point)
            if point or process.was_killed:
                self._note_kill(Death(time.time(), self.index, point, consumers))
            elif not (self._ending and code == 0):
                self._note_end(process, code, was_ready=was_ready)

    def _spawn(self) -> WorkerProcess:
        with self._lock:
            self._ending = False
            process = self._process = self._fork_server.spawn(self.name, self._log)
            if self._closing:
                process.signal(signal.SIGKILL)
            if self._orders:
                self._send_order()
        return process

    def _send_order(self) -> None:
        point, nth = self._orders[0]
        if self._process is not None:
            self._process.order(f"die {nth} {point}")  # if it is dead, its successor gets the order

    def _listen(self, news: int) -> tuple[list[str], str, bool]:
        """Read what the worker says until it ends."""
        consumers, point, was_ready = [], "", False
        with open(news) as lines:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                if word == "ready":
                    was_ready = True
                    self.ready.set()
                elif word == "consumer":
                    consumers.append(rest)
                elif word == "died":
                    point = rest
        self.ready.clear()
        return consumers, point, was_ready

    def _note_end(self, process: WorkerProcess, code: int, *, was_ready: bool) -> None:
        """A worker ended that was not killed: while it started, or asked to with a wrong code, or unasked."""
        if was_ready:
            why = "though asked to end" if self._ending else "unasked"
            self.surprises.append(f"{self.name} (pid {process.pid}) ended with code {code}, {why}")
        elif not self._ending:
            self.failed_starts += 1
            time.sleep(RESTART_S)

    def _note_kill(self, death: Death) -> None:
        if death.point:
            self.points[death.point] += 1
            with self._lock:
                if self._orders and self._orders[0][0] == death.point:
                    self._orders.popleft()
        else:
            self.random_kills += 1
        self._on_death(death)
