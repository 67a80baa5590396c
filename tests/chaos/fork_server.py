"""Starts worker processes quickly: one process imports all that a worker needs, and forks for each.

An import of Celery and what it needs costs a second of CPU. With hundreds of killed workers that would be most of the
run, and what is to be broken is not the import. Everything else in a forked worker is as in any other.
Linux only: the harness becomes the parent of the forked workers as their "subreaper".
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.chaos import worker

#: From <linux/prctl.h>.
_PR_SET_CHILD_SUBREAPER: Final = 36

_MESSAGE_BYTES: Final = 4096


class WorkerProcess:
    """A forked worker. news: descriptor from which its lines can be read."""

    def __init__(self, pid: int, orders: int, news: int) -> None:
        self.pid = pid
        self.news = news
        self.code: int | None = None
        self.was_killed = False
        self.ended = threading.Event()
        self._kill_sent = False
        self._orders = orders
        self._lock = threading.Lock()

    def order(self, line: str) -> None:
        """Send a line; one to a dead worker is dropped."""
        with self._lock:
            if self.code is None:
                try:
                    os.write(self._orders, f"{line}\n".encode())
                except BrokenPipeError:
                    return

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process has ended."""
        with self._lock:
            if self.code is not None:
                return False
            os.kill(self.pid, number)
            return True

    def kill(self) -> bool:
        """Send SIGKILL; False when the process has ended. Once it has, `was_killed` tells whether it died of this."""
        self._kill_sent = True
        return self.signal(signal.SIGKILL)

    def reap(self, point: str) -> int:
        """Take the exit code when `news` has ended, as subprocess writes it; to be called once.

        point: where the process said that it dies, if it did.
        """
        with self._lock:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
            self.was_killed = self._kill_sent and not point and self.code == -signal.SIGKILL
            os.close(self._orders)
        self.ended.set()
        return self.code


class ForkServer:
    """The process that forks. environment: of itself and of all workers."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.fork_server"],
                # Forking is for processes without threads.
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                stdin=theirs.fileno(),
                process_group=0,
            )

    def spawn(self, name: str, log: Path) -> WorkerProcess:
        """Fork a worker."""
        orders_end, orders = os.pipe()
        news, news_end = os.pipe()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with self._lock:
                socket.send_fds(self._control, [name.encode()], [orders_end, news_end, out])
                pid = int(self._control.recv(_MESSAGE_BYTES) or b"0")
        finally:
            for each in (orders_end, news_end, out):
                os.close(each)
        if not pid:
            raise RuntimeError("the fork server of workers has ended")
        return WorkerProcess(pid, orders, news)

    def close(self) -> None:
        """End the process that forks; workers go on."""
        self._control.close()
        self._process.wait()


def _serve(control: socket.socket) -> tuple[str, int] | None:
    """Fork until the harness is gone. In a child, gives its name and the descriptor for its news."""
    while True:
        name, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
        if not name:
            return None
        if (child := _fork(control)) == 0:
            orders, news, log = fds
            for source, target in ((orders, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            os.close(orders)
            os.close(log)
            return name.decode(), news
        for each in fds:
            os.close(each)
        control.send(str(child).encode())


def _fork(control: socket.socket) -> int:
    """Fork a process of the harness: the child of a child that ends at once. Gives its id, and 0 in it."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(writer)
            control.close()
            os.setpgid(0, 0)
            return 0
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(between, 0)
    with os.fdopen(reader, "rb") as news:
        return int(news.read())


def _main() -> None:
    worker.preload()
    job = _serve(socket.socket(fileno=os.dup(0)))
    if job is not None:
        worker.main(*job)


if __name__ == "__main__":
    _main()
