"""A client that asks for much, reads nothing and dies; and what must go on all the same.

`python -m tests.chaos.unread FIRST COUNT FOLDER` is that client: it says `submitted` and waits to be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from tests.chaos.ledger import Expect, Journal
from tests.chaos.models import WIDE

from headrace.producers import Client

if TYPE_CHECKING:
    from tests.chaos.cluster import Cluster

#: Inputs of these clients begin here, beyond those of all others.
FIRST_X: Final = 10**15

#: Requests of one such client; their replies are inline, so that together they are larger than the room that is left.
COUNT: Final = 1_000
BLOCK: Final = 100
ROOM_BYTES: Final = 32 << 20

#: A worker that stands still until the dead client's inbox expires stands still for an hour.
GOES_ON_S: Final = 90.0

#: Its process has submitted by then, though a worker or a server may be restarted meanwhile.
SUBMITTED_S: Final = 60.0


def ask_and_die(cluster: Cluster, number: int) -> bool:
    """Let such a client come and go while memory is scarce; raises when others are not served any more.

    number: unique among these clients.
    """
    with cluster.broker() as broker:
        used_bytes = broker.info("memory")["used_memory"]
        broker.config_set("maxmemory", used_bytes + ROOM_BYTES)
    try:
        _run_client(cluster, FIRST_X + number * COUNT)
        still_open = _wait_until_taken(cluster)
    finally:
        with cluster.broker() as broker:
            broker.config_set("maxmemory", 0)
    if still_open:
        raise AssertionError(
            f"{still_open} requests of a client that died unread are still open after {GOES_ON_S:.0f} s"
        )
    return True


def _run_client(cluster: Cluster, first: int) -> None:
    command = [sys.executable, "-m", "tests.chaos.unread", str(first), str(COUNT), str(cluster.ledger)]
    with subprocess.Popen(
        command, env=cluster.environment(), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, process_group=0
    ) as client:
        timer = threading.Timer(SUBMITTED_S, client.kill)
        timer.start()
        assert client.stdout is not None
        said = client.stdout.readline()
        timer.cancel()
        client.kill()
    if said.strip() != "submitted":
        raise AssertionError("the client that was to die unread could not submit")


def _wait_until_taken(cluster: Cluster) -> int:
    """Wait until all of its requests were acknowledged; returns how many were not when the time is up."""
    ends_at = time.monotonic() + GOES_ON_S
    while (still_open := cluster.open_messages(f"infer.{WIDE}")) and time.monotonic() < ends_at:
        time.sleep(0.1)
    return still_open


def main(first: int, count: int, folder: Path) -> None:
    """Be that client."""
    threading.Thread(target=_end_with_harness, name="orders", daemon=True).start()
    client = Client()
    with Journal(folder / f"accepted-unread-{first}") as accepted:
        for start in range(first, first + count, BLOCK):
            xs = list(range(start, start + BLOCK))
            handles = client.submit_many(WIDE, {"x": np.array(xs, np.int64)[:, None]})
            accepted.add(f"{handle.id} {Expect.UNREAD} {x}" for handle, x in zip(handles, xs, strict=True))
    print("submitted", flush=True)
    threading.Event().wait()


def _end_with_harness() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
