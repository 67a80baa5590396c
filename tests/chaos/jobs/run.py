"""Break things while bulk jobs run, and prove that every job ends as if nothing had happened.

python -m tests.chaos.jobs.run --seed 1 --faults 200
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.chaos.cluster import ClusterOptions
from tests.chaos.faults.injector import Injector
from tests.chaos.jobs.check import judge_job, judge_ledger
from tests.chaos.jobs.clients import JobClient
from tests.chaos.jobs.cluster import JobCluster
from tests.chaos.jobs.inputs import OUTPUTS, make_input, output_of
from tests.chaos.jobs.kill_points import OFTEN, POINTS
from tests.chaos.schedule import Fault, Kind

#: Faults and how often each is chosen.
WEIGHTS: Final = {
    Kind.KILL: 16,
    Kind.KILL_AT: 40,
    Kind.PAUSE: 10,
    Kind.ROLL: 4,
    Kind.VALKEY_TERM: 2,
    Kind.VALKEY_KILL: 2,
    Kind.VALKEY_CUT: 2,
    Kind.VALKEY_STALL: 2,
    Kind.VALKEY_REFUSE: 2,
    Kind.VALKEY_VANISH: 1,
    Kind.POSTGRES_FAST: 3,
    Kind.POSTGRES_IMMEDIATE: 3,
    Kind.POSTGRES_AWAY: 2,
    Kind.POSTGRES_CUT: 3,
    Kind.POSTGRES_CUT_REPLY: 4,
    Kind.POSTGRES_STALL: 2,
    Kind.POSTGRES_VANISH: 1,
    Kind.POSTGRES_READ_ONLY: 1,
    Kind.CLIENT_DIES: 6,
}

#: Between two faults, and how many may be under way.
BETWEEN_S: Final = (0.3, 2.2)
MOST_AT_ONCE: Final = 3

#: A worker is told to die at up to this passage of a point.
MAX_NTH: Final = 3

#: Every so many faults, the object store is what breaks.
S3_EVERY: Final = 12

#: How often the run says where it is.
REPORT_S: Final = 15.0

#: Points that no worker came to by then are left; the report names them.
POINTS_S: Final = 20.0


def make_faults(seed: int, count: int, workers: int) -> list[Fault]:
    """Return faults in their order; the same for the same arguments. `at` is their number."""
    rng = random.Random(seed)
    kinds = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    points = list(POINTS)
    found = []
    for at, kind in enumerate(kinds):
        if kind is Kind.KILL_AT and not points:
            points = rng.sample(POINTS, len(POINTS))
        point = points.pop() if kind is Kind.KILL_AT else ""
        nth = rng.randint(1, MAX_NTH if point in OFTEN else 1) if point else 0
        found.append(Fault(at, kind, rng.randrange(workers), point, nth, rng.random()))
    return found


class JobRun:
    """One run. problems: what is wrong at its end."""

    def __init__(self, options: argparse.Namespace, cluster: JobCluster) -> None:
        self.problems: list[str] = []
        self.met: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.rows = 0
        self._options = options
        self._cluster = cluster
        self._began = time.monotonic()

    def run(self) -> None:
        """Break things, wait for the end of all jobs, and look."""
        options, cluster = self._options, self._cluster
        clients = [JobClient(cluster, index, options.clients, options.seed) for index in range(options.clients)]
        injector = Injector(cluster)
        try:
            self._break(injector, clients)
            self._finish(injector, clients)
        finally:
            for client in clients:
                client.close()
        self.problems += injector.errors
        self.met.update({kind.value: count for kind, count in injector.done.items() if kind is not Kind.KILL_AT})
        self._judge()

    def _break(self, injector: Injector, clients: Sequence[JobClient]) -> None:
        rng = random.Random(self._options.seed + 1)
        under_way: list[Future[None]] = []
        said_at = time.monotonic()
        for fault in make_faults(self._options.seed, self._options.faults, self._options.workers):
            time.sleep(rng.uniform(*BETWEEN_S))
            while len(under_way := [each for each in under_way if not each.done()]) >= MOST_AT_ONCE:
                time.sleep(0.05)
            if fault.at % S3_EVERY == S3_EVERY - 1 and self._cluster.s3 is not None:
                way = "kill" if fault.fraction < 0.7 else "freeze"
                under_way.append(self._cluster.break_s3(way))
                self.met[f"object store: {'kill -9' if way == 'kill' else 'SIGSTOP'}"] += 1
            elif fault.kind is Kind.CLIENT_DIES:
                self.met["client: killed"] += clients[fault.worker % len(clients)].kill()
            else:
                under_way.append(injector._thread_of(fault.kind).submit(injector._do, fault))
            if time.monotonic() - said_at > REPORT_S:
                said_at = time.monotonic()
                self._say(f"{fault.at + 1} faults, {len(self._cluster.deaths)} kills, {len(list(self._ended()))} jobs")

    def _finish(self, injector: Injector, clients: Sequence[JobClient]) -> None:
        injector.finish()
        self._cluster.settle_s3()
        ends_at = time.monotonic() + POINTS_S
        while any(slot.armed for slot in self._cluster.slots) and time.monotonic() < ends_at:
            time.sleep(0.2)
        self._say("all faults are done")
        threads = [threading.Thread(target=self._finish_client, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _finish_client(self, client: JobClient) -> None:
        if problem := client.finish():
            self.problems.append(problem)

    def _ended(self) -> Iterator[tuple[int, str, str]]:
        for path in sorted((self._cluster.folder / "jobs").glob("jobs-*")):
            for line in path.read_text().splitlines():
                number, identity, state = line.split()
                yield int(number), identity, state

    def _judge(self) -> None:
        folder, bucket = self._cluster.folder / "jobs", self._cluster.environment().get(OUTPUTS, "")
        scrap = self._cluster.folder / "again"
        for number, identity, state in self._ended():
            wanted = make_input(scrap, self._options.seed, number)
            output = output_of(folder, bucket, number)
            where = " into S3" if "://" in output else ""
            wrong = list(judge_job(wanted, self._cluster.fetched(output, scrap)))
            self.jobs[f"{wanted.kind}{where}: {state}"] += 1
            self.rows += wanted.rows
            if state != "succeeded":
                wrong.insert(0, f"it ended as {state}")
            self.problems += [f"job {number} ({wanted.kind}, {identity}): {each}" for each in wrong]
        self.problems += judge_ledger(self._cluster.database_url)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {text}", file=sys.stderr, flush=True)

    def report(self) -> Iterator[str]:
        """Yield the lines of the report."""
        slots = self._cluster.slots
        yield f"jobs      {self.jobs.total()} with {self.rows:,} rows in {time.monotonic() - self._began:.0f} s"
        yield from (f"  {count:>5}  {what}" for what, count in sorted(self.jobs.items()))
        points = sum((slot.points for slot in slots), Counter[str]())
        yield f"faults    {self.met.total() + points.total()} met; seed {self._options.seed}"
        yield from (f"  {count:>5}  {what}" for what, count in sorted(self.met.items()))
        yield from (f"  {points[point]:>5}  kill -9: {point}" for point in POINTS)
        scratch = list((self._cluster.folder / "scratch").glob("*"))
        yield f"scratch   {len(scratch)} files of killed workers were left"
        yield from (f"PROBLEM   {each}" for each in self.problems)
        yield "PASSED" if not self.problems else f"FAILED: {len(self.problems)} problems"


def run(options: argparse.Namespace, folder: Path) -> JobRun:
    """Run everything in a folder."""
    (folder / "jobs").mkdir(parents=True)
    cluster = JobCluster(
        folder, ClusterOptions(options.workers, options.lease, timeout_s=options.timeout, plain_workers=0)
    )
    with cluster:
        found = JobRun(options, cluster)
        found.run()
        for slot in cluster.slots:
            slot.close(cluster.options.grace_s)
        found.problems += [line for slot in cluster.slots for line in slot.surprises]
    return found


def main() -> int:
    """Read the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.jobs.run", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--lease", type=float, default=2.0, help="HEADRACE_LEASE_S of the workers")
    parser.add_argument("--timeout", type=float, default=2.0, help="how long a read or write of theirs may be silent")
    parser.add_argument("--folder", type=Path, help="where data and logs lie; by default a temporary folder")
    options = parser.parse_args()
    with ExitStack() as undo:
        folder = options.folder or Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-jobs-")))
        found = run(options, folder)
        print("\n".join(found.report()))
    return 0 if not found.problems else 1


if __name__ == "__main__":
    sys.exit(main())
