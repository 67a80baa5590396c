"""A worker process of the product that takes orders to die, or to have a wrong clock.

Standard input: lines `die NTH POINT` and `clock SECONDS`; its end means that the harness is gone. The fork
server starts it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from typing import Final

from tests.chaos.jobs.kill_points import SWITCH, install_job_points
from tests.chaos.kill_points import Trigger, install

#: What a worker imports on its way to being ready. Not ONNX Runtime: it has a thread, which a fork would lose.
_MODULES: Final = (
    "celery.__main__",
    "celery.bin.worker",
    "celery.concurrency.solo",
    "celery.worker.consumer",
    "headrace.workers.app",
    "headrace.workers.intake.strategy",
    "headrace.workers.celery_app.bootsteps",
    "headrace.queueing.transport",
    "headrace.results_store.celery_backend",
    "tests.chaos.plain.app",
)

#: Names of ordinary Celery workers begin with this.
PLAIN: Final = "plain-"

_INFERENCE: Final = "-A headrace.workers.app worker --pool solo --without-gossip"
_ORDINARY: Final = "-A tests.chaos.plain.app worker --pool threads --concurrency 2"


class Clock:
    """The wall clock of this process, which can be set wrong: what Python's `time` module says, not what C asks for."""

    def __init__(self) -> None:
        self.off_s = 0.0
        self._time, self._time_ns = time.time, time.time_ns

    def install(self) -> None:
        """Take the place of the real clock, before anybody holds on to it."""
        time.time, time.time_ns = self.time, self.time_ns

    def time(self) -> float:
        """Seconds since 1970, or so this process believes."""
        return self._time() + self.off_s

    def time_ns(self) -> int:
        """Nanoseconds since 1970, or so this process believes."""
        return self._time_ns() + int(self.off_s * 1e9)


clock: Final = Clock()


def preload() -> None:
    """Import what a worker will need; starts no thread and opens no connection."""
    clock.install()
    for name in _MODULES:
        importlib.import_module(name)


def main(name: str, news: int) -> None:
    """Become a Celery worker, an ordinary one if its name says so. news: descriptor for lines to the harness."""
    from celery.__main__ import main as celery
    from celery.signals import worker_ready

    def tell(line: str) -> None:
        os.write(news, f"{line}\n".encode())

    def ready(**_: object) -> None:
        tell("ready")

    trigger = Trigger(tell)
    is_plain = name.startswith(PLAIN)
    if not is_plain:
        install(trigger, tell)
        if os.environ.get(SWITCH):
            install_job_points(trigger)
    threading.Thread(target=_obey, args=(trigger,), name="chaos-orders", daemon=True).start()
    worker_ready.connect(ready)
    command = f"celery --quiet {_ORDINARY if is_plain else _INFERENCE} --loglevel INFO --hostname {name}@%h"
    sys.argv = command.split()
    celery()


def _obey(trigger: Trigger) -> None:
    # Not sys.stdin: Celery replaces it.
    with open(0, closefd=False) as orders:
        for line in orders:
            word, value, *point = line.strip().split(" ", 2)
            if word == "clock":
                clock.off_s = float(value)
            else:
                trigger.arm(point[0], int(value))
    os.kill(os.getpid(), signal.SIGKILL)
