"""Take the broker's data away under load, and prove that durable requests survive and all others are told.

python -m tests.chaos.losses.run --losses 6 --seed 1
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.chaos.check import read_rows
from tests.chaos.cluster import ROOT, Cluster, ClusterOptions
from tests.chaos.ledger import read_accepted, read_told
from tests.chaos.losses.check import LossVerdict, Told, judge_losses
from tests.chaos.losses.faults import fail_over, flush

#: Between two losses, beside the lease: requests are accepted, and some are answered.
BETWEEN_S: Final = (1.0, 3.0)

#: A replica that takes over misses what happened for so long.
STALE_S: Final = (0.3, 2.0)

#: Workers stand still for so long, shorter than their lease; and so long before data is lost. They go on soon after
#: that: what they had in their hands is stored before anybody is told that it is lost.
STOPPED_S: Final = 1.5
WAITING_S: Final = 1.35

#: Clients whose open requests don't end within this time have waiters left behind; the verdict names them.
END_S: Final = 120.0


@contextmanager
def running_clients(cluster: Cluster, options: argparse.Namespace) -> Iterator[list[subprocess.Popen[str]]]:
    """Run the client processes."""
    with ExitStack() as undo:
        clients = []
        for index in range(options.clients):
            words = (index, options.rate / options.clients, options.seed, cluster.ledger)
            log = undo.enter_context((cluster.folder / f"client-{index}.log").open("w"))
            command = [sys.executable, "-m", "tests.chaos.losses.client", *map(str, words)]
            client = subprocess.Popen(
                command,
                env=cluster.environment(),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stderr=log,
                text=True,
                process_group=0,
            )
            undo.callback(_end, client)
            clients.append(client)
        yield clients


def _end(client: subprocess.Popen[str]) -> None:
    client.kill()
    client.wait()
    if client.stdin is not None:
        with suppress(OSError):  # what was still to be written to it
            client.stdin.close()


def let_requests_wait(cluster: Cluster) -> None:
    """Stop all workers for a while, so that there is something to lose when this returns."""
    for slot in cluster.slots:
        threading.Thread(target=slot.pause, args=(STOPPED_S, END_S), daemon=True).start()
    time.sleep(WAITING_S)


def lose_data(cluster: Cluster, options: argparse.Namespace) -> list[float]:
    """Flush and fail over in turn; returns when data was lost, in seconds since 1970."""
    rng, losses = random.Random(options.seed), []
    for number in range(options.losses):
        time.sleep(options.lease + rng.uniform(*BETWEEN_S))
        let_requests_wait(cluster)
        if number % 2:
            cluster.on_valkey.submit(fail_over, cluster, rng.uniform(*STALE_S)).result()
        else:
            cluster.on_valkey.submit(flush, cluster).result()
        losses.append(time.time())
        print(f"{'stale replica' if number % 2 else 'flush':14} done", file=sys.stderr, flush=True)
    time.sleep(options.lease + BETWEEN_S[1])
    return losses


def run(options: argparse.Namespace, folder: Path) -> LossVerdict:
    """Run everything in a folder."""
    cluster = Cluster(
        folder, ClusterOptions(options.workers, options.lease, timeout_s=options.timeout, plain_workers=0)
    )
    began_at = time.time()
    with cluster:
        with running_clients(cluster, options) as clients:
            losses = lose_data(cluster, options)
            for client in clients:
                assert client.stdin is not None
                with suppress(OSError):
                    client.stdin.write("enough\n")
                    client.stdin.flush()
            ends_at = time.monotonic() + END_S
            codes = [_code_of(client, ends_at) for client in clients]
        rows = list(read_rows(cluster.database_url, began_at))
        told = {request_id: Told(answer, at) for request_id, answer, at in read_told(cluster.ledger)}
        verdict = judge_losses(read_accepted(cluster.ledger), told, rows, losses, options.lease + options.late)
        verdict.problems += [f"client {index} ended with {code}" for index, code in enumerate(codes) if code != 0]
        verdict.problems += [line for slot in cluster.slots for line in slot.surprises]
    return verdict


def _code_of(client: subprocess.Popen[str], ends_at: float) -> int | str:
    try:
        return client.wait(max(0.0, ends_at - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "no code: it still waits"


def main() -> int:
    """Read the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.losses.run", description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=6, help="how often data is lost")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second over all clients")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--lease", type=float, default=3.0, help="HEADRACE_LEASE_S, at least 2")
    parser.add_argument(
        "--late", type=float, default=0.0, help="seconds beyond the lease in which clients are told, on a busy machine"
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="how long a read or write of theirs may be silent")
    parser.add_argument("--folder", type=Path, help="where data and logs lie; by default a temporary folder")
    options = parser.parse_args()
    with ExitStack() as undo:
        folder = options.folder or Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-losses-")))
        verdict = run(options, folder)
    print("\n".join(verdict.text()))
    return 0 if not verdict.problems else 1


if __name__ == "__main__":
    sys.exit(main())
