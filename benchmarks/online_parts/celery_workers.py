"""Runs one Celery worker, or N side by side, as one process tree: `python -m online_parts.celery_workers N POOL`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from online_parts.celery_app import QUEUE


def command(number: int, pool: str) -> list[str]:
    """Give the command line of one worker: what would only cost time is off."""
    size = [] if pool == "solo" else ["--concurrency", "2"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    worker = ["-m", "celery", "-A", "online_parts.celery_worker", "worker", "-Q", QUEUE, "-n", f"rival{number}@bench"]
    return [sys.executable, *worker, "--pool", pool, *size, *quiet]


def main() -> None:
    """Become the worker, or the parent of several that passes SIGTERM on."""
    count, pool = int(sys.argv[1]), sys.argv[2]
    if count == 1:
        os.execv(sys.executable, command(0, pool))
    workers = [subprocess.Popen(command(number, pool)) for number in range(count)]
    signal.signal(signal.SIGTERM, lambda *_: [worker.terminate() for worker in workers])
    for worker in workers:
        worker.wait()


if __name__ == "__main__":
    main()
