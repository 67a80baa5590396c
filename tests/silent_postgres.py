"""A Postgres that accepts connections and never answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from headrace.cli.stack.servers import Postgres


@contextmanager
def silent(server: Postgres) -> Iterator[None]:
    """Stop every process of the server, and let them go on at the end."""
    pids = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
