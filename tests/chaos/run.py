"""Break things under load, and prove that nothing was lost, doubled or wrong.

python -m tests.chaos.run --requests 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.chaos.check import judge, read_rows
from tests.chaos.cluster import Cluster, ClusterOptions
from tests.chaos.faults.injector import Injector
from tests.chaos.ledger import read_accepted, read_answered, read_tasks
from tests.chaos.logs import most_warnings
from tests.chaos.memory import MemoryWatch
from tests.chaos.processes import STALLED_S, Progress, running_clients, running_plain_load
from tests.chaos.report import MOST_GROWTH_LARGE_BYTES, Report
from tests.chaos.schedule import Fault, Kind, counts_for, make_schedule
from tests.chaos.wire.notice import notice_of

#: How long behind the schedule workers may take to come to the points at which they must die.
POINTS_S: Final = 90.0

#: How often the run says where it is.
REPORT_S: Final = 10.0

#: Beyond lease + 15 s: how long all may take to become empty after the last answer.
SETTLE_MARGIN_S: Final = 15.0


def break_things(cluster: Cluster, options: argparse.Namespace, schedule: Sequence[Fault], report: Report) -> None:
    """Run the clients and the schedule, to the end of both, until all has settled."""
    progress, injector = Progress(options.clients), Injector(cluster)
    began = time.monotonic()
    said_at = began
    with (
        running_clients(cluster, options, progress) as threads,
        running_plain_load(cluster) as end_plain_load,
        MemoryWatch((*cluster.slots, *cluster.plain_slots)) as memory,
    ):
        for fault in schedule:
            if not progress.wait_for(fault.at):
                break
            injector.inject(fault)
            if time.monotonic() - said_at > REPORT_S:
                said_at = time.monotonic()
                report.say(f"{said_at - began:6.0f} s  {progress.answered:>9,} answered, {len(cluster.deaths)} kills")
        injector.finish()
        _await_points(cluster, injector, report)
        progress.enough()
        report.say(f"{time.monotonic() - began:6.0f} s  all faults are done; {progress.answered:,} answered")
        if not progress.wait_for_end():
            report.problems.append(f"nothing was answered for {STALLED_S:.0f} s; the clients were given up")
        report.problems += progress.crashed()
        try:
            end_plain_load()
        except subprocess.TimeoutExpired:
            report.problems.append("the sender of ordinary tasks does not end")
        report.seconds = time.monotonic() - began
        report.settled = cluster.settle(options.lease + 15 + SETTLE_MARGIN_S)
    for thread in threads:
        thread.join()
    report.left_behind = progress.left_behind
    report.problems += injector.errors
    report.faults = injector.done
    report.outages = injector.outages
    report.most_bytes, report.grown_bytes = memory.most_bytes, memory.grown_bytes


def _await_points(cluster: Cluster, injector: Injector, report: Report) -> None:
    """Wait until the workers have died wherever they were told to, for a while."""
    ends_at = time.monotonic() + POINTS_S
    while any(slot.armed for slot in cluster.slots) and time.monotonic() < ends_at:
        injector.workers.let_others_die()
        time.sleep(cluster.options.lease_s / 10)
    report.unmet_points = sum(slot.armed for slot in cluster.slots)


def run(options: argparse.Namespace, folder: Path) -> Report:
    """Run everything in a folder."""
    counts = counts_for(options.requests)
    if options.only:
        counts = {kind: max(1, count) if kind.name in options.only else 0 for kind, count in counts.items()}
    schedule = make_schedule(options.seed, options.requests, options.workers, counts)
    report = Report(options.requests, options.seed, options.workers, options.lease, counts)
    if options.large:
        report.most_growth_bytes = MOST_GROWTH_LARGE_BYTES
    cluster = Cluster(folder, ClusterOptions(workers=options.workers, lease_s=options.lease, timeout_s=options.timeout))
    began_at = time.time()
    with cluster:
        report.say(f"{len(schedule)} faults in {options.requests:,} requests, seed {options.seed}; logs in {folder}")
        break_things(cluster, options, schedule, report)
        silences = [*cluster.valkey_proxy.silences, *cluster.postgres_proxy.silences]
        report.notice = notice_of(silences, options.timeout)
        for slot in (*cluster.slots, *cluster.plain_slots):
            slot.close(cluster.options.grace_s)
        report.add_slots(cluster.slots, cluster.plain_slots)
        report.warnings = most_warnings(folder.glob("*worker-*.log"))
        report.left_over = cluster.leftovers()
        rows = read_rows(cluster.database_url, began_at)
        report.verdict = judge(
            read_accepted(cluster.ledger), read_answered(cluster.ledger), rows, cluster.dead_letters()
        )
        report.tasks_sent, report.tasks_ran = read_tasks(cluster.ledger)
        report.add_deaths(cluster.deaths)
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
    parser.add_argument("--timeout", type=float, default=3.0, help="how long a read or write of theirs may be silent")
    parser.add_argument(
        "--only", action="append", choices=[kind.name for kind in Kind], metavar="KIND", help="faults; may be repeated"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="some requests with outputs of 600 kB; a worker may grow by 300 MB then",
    )
    parser.add_argument("--folder", type=Path, help="where data and logs lie; by default a temporary folder")
    options = parser.parse_args()
    with ExitStack() as undo:
        folder = options.folder or Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-chaos-")))
        report = run(options, folder)
    print(report.text())
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
