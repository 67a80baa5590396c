"""A worker process of the product that takes orders to die.

Standard input: lines `NTH POINT`; its end means that the harness is gone. `nursery.py` forks it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Final

from tests.chaos.seams import Trigger, install

#: What a worker imports on its way to being ready. Not ONNX Runtime: it has a thread, which a fork would lose.
_MODULES: Final = (
    "celery.__main__",
    "celery.bin.worker",
    "celery.concurrency.solo",
    "celery.worker.consumer",
    "headrace.workers.app",
    "headrace.workers.intake",
    "headrace.workers.steps",
    "headrace.queueing.transport",
    "headrace.results_store.celery_backend",
)


def preload() -> None:
    """Import what a worker will need; starts no thread and opens no connection."""
    for name in _MODULES:
        importlib.import_module(name)


def main(name: str, news: int) -> None:
    """Become a Celery worker. news: descriptor that takes lines for the harness."""
    from celery.__main__ import main as celery
    from celery.signals import worker_ready

    def tell(line: str) -> None:
        os.write(news, f"{line}\n".encode())

    def ready(**_: object) -> None:
        tell("ready")

    trigger = Trigger(tell)
    install(trigger, tell)
    threading.Thread(target=_obey, args=(trigger,), name="chaos-orders", daemon=True).start()
    worker_ready.connect(ready)
    command = "celery --quiet -A headrace.workers.app worker --pool solo --without-gossip --loglevel INFO"
    sys.argv = [*command.split(), "--hostname", f"{name}@%h"]
    celery()


def _obey(trigger: Trigger) -> None:
    # Not sys.stdin: Celery replaces it.
    with open(0, closefd=False) as orders:
        for line in orders:
            nth, point = line.strip().split(" ", 1)
            trigger.arm(point, int(nth))
    os.kill(os.getpid(), signal.SIGKILL)
