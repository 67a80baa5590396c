"""Break things under load, and prove that nothing was lost, doubled or wrong.

python -m tests.chaos.run --requests 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.chaos.check import judge, read_rows
from tests.chaos.faults import Injector
from tests.chaos.ledger import read_accepted, read_answered
from tests.chaos.logs import most_warnings
from tests.chaos.memory import MemoryWatch
from tests.chaos.report import Report
from tests.chaos.schedule import Fault, make_schedule
from tests.chaos.world import ROOT, World, WorldOptions, client_command

#: A run in which nothing is answered for so long is over; the check tells what was lost.
STALLED_S: Final = 240.0

#: How long behind the schedule workers may take to come to the points at which they must die.
POINTS_S: Final = 90.0

#: How often the run says where it is.
REPORT_S: Final = 10.0

#: Beyond lease + 15 s: how long all may take to become empty after the last answer.
SETTLE_MARGIN_S: Final = 15.0


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
def running_clients(world: World, options: argparse.Namespace, progress: Progress) -> Iterator[list[threading.Thread]]:
    """Run the client processes, and a thread for each that hears them."""
    with ExitStack() as undo:
        threads = []
        for index in range(options.clients):
            count = options.requests // options.clients + (index < options.requests % options.clients)
            log = undo.enter_context((world.folder / f"client-{index}.log").open("w"))
            client = subprocess.Popen(
                client_command(index, count, options.rate / options.clients, options.seed, world.ledger),
                env=world.environment(),
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


def _end(client: subprocess.Popen[str]) -> None:
    client.kill()
    client.wait()
    for pipe in (client.stdin, client.stdout):
        if pipe is not None:
            pipe.close()


def break_things(world: World, options: argparse.Namespace, schedule: Sequence[Fault], report: Report) -> None:
    """Run the clients and the schedule, to the end of both, until all has settled."""
    progress, injector = Progress(options.clients), Injector(world)
    began = time.monotonic()
    said_at = began
    with running_clients(world, options, progress) as threads, MemoryWatch(world.slots) as memory:
        for fault in schedule:
            if not progress.wait_for(fault.at):
                break
            injector.inject(fault)
            if time.monotonic() - said_at > REPORT_S:
                said_at = time.monotonic()
                report.say(f"{said_at - began:6.0f} s  {progress.answered:>9,} answered, {len(world.deaths)} kills")
        injector.finish()
        _await_points(world, injector, report)
        progress.enough()
        report.say(f"{time.monotonic() - began:6.0f} s  all faults are done; {progress.answered:,} answered")
        if not progress.wait_for_end():
            report.problems.append(f"nothing was answered for {STALLED_S:.0f} s; the clients were given up")
        report.seconds = time.monotonic() - began
        report.settled = world.settle(options.lease + 15 + SETTLE_MARGIN_S)
    for thread in threads:
        thread.join()
    report.left_behind = progress.left_behind
    report.problems += injector.errors
    report.faults = injector.done
    report.outages = injector.outages
    report.most_bytes, report.grown_bytes = memory.most_bytes, memory.grown_bytes


def _await_points(world: World, injector: Injector, report: Report) -> None:
    """Wait until the workers have died wherever they were told to, for a while."""
    ends_at = time.monotonic() + POINTS_S
    while any(slot.armed for slot in world.slots) and time.monotonic() < ends_at:
        injector.let_others_die()
        time.sleep(world.options.lease_s / 10)
    report.unmet_points = sum(slot.armed for slot in world.slots)


def run(options: argparse.Namespace, folder: Path) -> Report:
    """Run everything in a folder."""
    schedule = make_schedule(options.seed, options.requests, options.workers)
    report = Report(options.requests, options.seed, options.workers, options.lease)
    world = World(folder, WorldOptions(workers=options.workers, lease_s=options.lease))
    with world:
        report.say(f"{len(schedule)} faults in {options.requests:,} requests, seed {options.seed}; logs in {folder}")
        break_things(world, options, schedule, report)
        for slot in world.slots:
            slot.close(world.options.grace_s)
        report.add_slots(world.slots)
        report.warnings = most_warnings(folder.glob("worker-*.log"))
        report.left_over = world.leftovers()
        report.verdict = judge(read_accepted(world.ledger), read_answered(world.ledger), read_rows(world.database_url))
        report.add_deaths(world.deaths)
    return report


def main() -> int:
    """Read the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.0, help="most requests a second over all clients; 0: no limit")
    parser.add_argument("--lease", type=float, default=3.0, help="HEADRACE_LEASE_S of the workers")
    parser.add_argument("--folder", type=Path, help="where data and logs lie; by default a temporary folder")
    options = parser.parse_args()
    with ExitStack() as undo:
        folder = options.folder or Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-chaos-")))
        report = run(options, folder)
    print(report.text())
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
