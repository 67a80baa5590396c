"""The processes that ask for work, and what they say."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from tests.chaos.cluster import ROOT, Cluster, client_command

#: A run in which nothing is answered for so long is over; the check tells what was lost.
STALLED_S: Final = 240.0

#: Ordinary tasks a second.
PLAIN_RATE: Final = 20.0

#: The sender of ordinary tasks ends within this time, even if the connection that it uses just froze.
PLAIN_END_S: Final = 60.0


class Progress:
    """Counts answered requests over all clients."""

    def __init__(self, clients: int) -> None:
        self.clients: list[subprocess.Popen[str]] = []
        self.answered = 0
        self.left_behind = 0
        self._open = clients
        self._changed = threading.Condition()

    def listen(self, client: subprocess.Popen[str]) -> None:
        """Read what a client says until it ends."""
        assert client.stdout is not None
        for line in client.stdout:
            word, _, number = line.partition(" ")
            with self._changed:
                if word == "answered":
                    self.answered += int(number)
                elif word == "left_behind":
                    self.left_behind += int(number)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def crashed(self) -> list[str]:
        """Return a line for each client that has ended by itself, but not well."""
        codes = [client.poll() for client in self.clients]
        return [f"client {index} ended with {code}; see its log" for index, code in enumerate(codes) if code]

    def enough(self) -> None:
        """Tell the clients that they need not go on."""
        for client in self.clients:
            with suppress(OSError):
                assert client.stdin is not None
                client.stdin.write("enough\n")
                client.stdin.flush()

    def wait_for(self, answered: int) -> bool:
        """Wait for so many answers; False when they won't come: the clients have ended, or nothing moves."""
        with self._changed:
            while self.answered < answered and self._open:
                if not self._changed.wait(STALLED_S):
                    return False
            return self.answered >= answered

    def wait_for_end(self) -> bool:
        """Wait until every client has ended; False when nothing moves."""
        with self._changed:
            while self._open:
                if not self._changed.wait(STALLED_S):
                    return False
            return True


@contextmanager
def running_clients(
    cluster: Cluster, options: argparse.Namespace, progress: Progress
) -> Iterator[list[threading.Thread]]:
    """Run the client processes, and a thread for each that hears them."""
    with ExitStack() as undo:
        threads = []
        for index in range(options.clients):
            count = options.requests // options.clients + (index < options.requests % options.clients)
            log = undo.enter_context((cluster.folder / f"client-{index}.log").open("w"))
            client = subprocess.Popen(
                client_command(
                    index, count, options.rate / options.clients, options.seed, cluster.ledger, large=options.large
                ),
                env=cluster.environment(),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                process_group=0,
            )
            undo.callback(_end, client)
            progress.clients.append(client)
            threads.append(threading.Thread(target=progress.listen, args=(client,), daemon=True))
            threads[-1].start()
        yield threads


@contextmanager
def running_plain_load(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Run the process that sends ordinary tasks. Gives what ends it, and returns when it has."""
    command = [sys.executable, "-m", "tests.chaos.plain.load", str(PLAIN_RATE), str(cluster.ledger)]
    with (cluster.folder / "plain-load.log").open("w") as log:
        process = subprocess.Popen(
            command, env=cluster.environment(), cwd=ROOT, stdin=subprocess.PIPE, stderr=log, text=True, process_group=0
        )
    try:
        yield lambda: _tell(process, PLAIN_END_S)
    finally:
        _end(process)


def _tell(process: subprocess.Popen[str], patience_s: float) -> None:
    """Tell the sender of ordinary tasks that it is enough. Raises subprocess.TimeoutExpired when it does not end."""
    assert process.stdin is not None
    process.stdin.write("enough\n")
    process.stdin.flush()
    process.wait(patience_s)


def _end(client: subprocess.Popen[str]) -> None:
    client.kill()
    client.wait()
    for pipe in (client.stdin, client.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written to it
                pipe.close()
