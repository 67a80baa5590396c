"""Does faults when they are due, in the background, and notes what was done."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.cluster import Cluster
from tests.chaos.faults.postgres import PostgresFaults
from tests.chaos.faults.valkey import ValkeyFaults
from tests.chaos.faults.workers import WorkerFaults
from tests.chaos.ledger import Journal
from tests.chaos.schedule import FREEZES, Fault, Kind


class Injector:
    """Does faults in the background: those of one server one after the other, all others at the same time.

    done: what was done, by kind; kills of workers are counted where they are seen. outages: when the faults of
    a server began and ended (wall time). `faults.log` in the cluster's folder has a line for each fault that has ended.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.done: Counter[Kind] = Counter()
        self.errors: list[str] = []
        self.outages: list[tuple[float, float]] = []
        self._cluster = cluster
        self._lock = threading.Lock()
        self._began = time.time()
        self._journal = Journal(cluster.folder / "faults.log")
        self._on_workers = ThreadPoolExecutor(cluster.options.workers + 1, "chaos-workers")
        self._one_by_one = {name: ThreadPoolExecutor(1, f"chaos-{name}") for name in ("rolling", "plain")}
        self.workers = WorkerFaults(cluster)
        self._ways = {**self.workers.ways(), **ValkeyFaults(cluster).ways(), **PostgresFaults(cluster).ways()}

    def inject(self, fault: Fault) -> None:
        """Begin a fault; returns at once."""
        self._thread_of(fault.kind).submit(self._do, fault)

    def _thread_of(self, kind: Kind) -> ThreadPoolExecutor:
        """Return where a fault is done. A rolling restart waits for each worker, and must not hold up the others."""
        servers = {"Valkey": self._cluster.on_valkey, "Postgres": self._cluster.on_postgres}
        # What a client does to the memory of Valkey is a fault of Valkey.
        others = {"plain worker": self._one_by_one["plain"], "client": self._cluster.on_valkey}
        if kind is Kind.ROLL:
            return self._one_by_one["rolling"]
        return {**servers, **others, "worker": self._on_workers}[kind.partition(":")[0]]

    def finish(self) -> None:
        """Return when all that was begun is done, and both servers are well."""
        for threads in (self._on_workers, *self._one_by_one.values()):
            threads.shutdown()
        for thread in (self._cluster.on_valkey, self._cluster.on_postgres):
            thread.submit(lambda: None).result()

    def _do(self, fault: Fault) -> None:
        began = time.time()
        was_met: bool | None = None
        try:
            was_met = self._ways[fault.kind](fault)
            if was_met:
                with self._lock:
                    self.done[fault.kind] += 1
                    if fault.kind.startswith(("Valkey", "Postgres")) and fault.kind not in FREEZES:
                        self.outages.append((began, time.time()))
        except Exception as exc:  # noqa: BLE001 — the run goes on, and its report says so.
            self.errors.append(f"{fault.kind}: {type(exc).__name__}: {exc}")
        finally:
            end = {True: "done", False: "never met", None: "failed"}[was_met]
            span = f"{began - self._began:7.1f} {time.time() - self._began:7.1f} s"
            self._journal.add([f"{span}  {fault.kind} {fault.point or fault.worker}: {end}"])
