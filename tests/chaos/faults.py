"""How each fault is done to a world."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.chaos import disk
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Fault, Kind
from tests.chaos.seams import HOLDING, OF_REDELIVERED
from tests.chaos.world import World

from headrace.cli.servers import Server

#: How long things last, in seconds: shortest and longest.
AWAY_S: Final = (0.5, 4.0)
STALL_S: Final = (0.5, 3.0)
FULL_S: Final = (0.3, 2.0)
POSTGRES_AWAY_S: Final = (3.0, 6.0)
DISK_FULL_S: Final = (2.0, 5.0)
WAL_FULL_S: Final = (0.5, 3.0)
MINUTE_S: Final = (60.0, 65.0)

#: A stopped worker sleeps for its lease and this.
BEYOND_LEASE_S: Final = (0.5, 2.5)

#: Connections that lose a reply at one time.
REPLIES_CUT: Final = 3

#: A full disk is meant to be met; so long is waited for it at most.
REFUSED_S: Final = 120.0

#: A restarted worker that isn't ready by then is left to itself; the end of the run tells.
READY_S: Final = 60.0


class Injector:
    """Does faults in the background: those of one server one after the other, all others at the same time.

    done: what was done, by kind; kills of workers are counted where they are seen. outages: when the faults of
    a server began and ended (wall time).
    """

    def __init__(self, world: World) -> None:
        self.done: Counter[Kind] = Counter()
        self.errors: list[str] = []
        self.outages: list[tuple[float, float]] = []
        self._world = world
        self._lock = threading.Lock()
        self._on_workers = ThreadPoolExecutor(world.options.workers + 1, "chaos-workers")
        self._rolling = threading.Lock()
        self._ways = self._make_ways()

    def inject(self, fault: Fault) -> None:
        """Begin a fault; returns at once."""
        target = fault.kind.partition(":")[0]
        threads = {"Valkey": self._world.on_valkey, "Postgres": self._world.on_postgres, "worker": self._on_workers}
        threads[target].submit(self._do, fault)

    def finish(self) -> None:
        """Return when all that was begun is done, and both servers are well."""
        self._on_workers.shutdown()
        for thread in (self._world.on_valkey, self._world.on_postgres):
            thread.submit(lambda: None).result()

    def _do(self, fault: Fault) -> None:
        began = time.time()
        try:
            if self._ways[fault.kind](fault):
                with self._lock:
                    self.done[fault.kind] += 1
                    if not fault.kind.startswith("worker"):
                        self.outages.append((began, time.time()))
        except Exception as exc:  # noqa: BLE001 — the run goes on, and its report says so.
            self.errors.append(f"{fault.kind}: {type(exc).__name__}: {exc}")

    def _make_ways(self) -> dict[Kind, Callable[[Fault], bool]]:
        world = self._world
        valkey, postgres = world.valkey, world.postgres
        to_valkey, to_postgres = world.valkey_proxy, world.postgres_proxy
        return {
            Kind.KILL: self._kill,
            Kind.KILL_AT: self._kill_at,
            Kind.PAUSE: self._pause,
            Kind.ROLL: self._roll,
            Kind.VALKEY_TERM: lambda _: _restart(valkey, signal.SIGTERM),
            Kind.VALKEY_KILL: lambda _: _restart(valkey, signal.SIGKILL),
            Kind.VALKEY_CUT: lambda _: _cut(to_valkey),
            Kind.VALKEY_CUT_REPLY: lambda fault: _cut_replies(to_valkey),
            Kind.VALKEY_STALL: lambda fault: _stall(to_valkey, _between(STALL_S, fault)),
            Kind.VALKEY_REFUSE: lambda fault: _refuse(to_valkey, _between(AWAY_S, fault)),
            Kind.VALKEY_FULL: lambda fault: self._fill_valkey(_between(FULL_S, fault)),
            Kind.VALKEY_FULL_LONG: lambda fault: self._fill_valkey(_between(MINUTE_S, fault)),
            Kind.VALKEY_AWAY_LONG: lambda fault: _restart(valkey, signal.SIGTERM, _between(MINUTE_S, fault)),
            Kind.POSTGRES_FAST: lambda _: _restart(postgres, signal.SIGINT),
            Kind.POSTGRES_IMMEDIATE: lambda _: _restart(postgres, signal.SIGQUIT),
            Kind.POSTGRES_AWAY: lambda fault: _restart(postgres, signal.SIGINT, _between(POSTGRES_AWAY_S, fault)),
            Kind.POSTGRES_AWAY_LONG: lambda fault: _restart(postgres, signal.SIGINT, _between(MINUTE_S, fault)),
            Kind.POSTGRES_CUT: lambda _: _cut(to_postgres),
            Kind.POSTGRES_CUT_REPLY: lambda fault: _cut_replies(to_postgres),
            Kind.POSTGRES_STALL: lambda fault: _stall(to_postgres, _between(STALL_S, fault)),
            Kind.POSTGRES_FULL: self._fill_disk,
            Kind.POSTGRES_WAL_FULL: self._fill_disk_of_wal,
        }

    def _kill(self, fault: Fault) -> bool:
        return self._world.slots[fault.worker].kill(READY_S)

    def _kill_at(self, fault: Fault) -> bool:
        self._world.slots[fault.worker].arm(fault.point, fault.nth)
        if fault.point in OF_REDELIVERED:
            self.let_others_die()
        return True

    def let_others_die(self) -> None:
        """Where a worker is to die over what was delivered before, have others leave something to deliver again."""
        slots = self._world.slots
        if any(slot.next_point in OF_REDELIVERED for slot in slots):
            for slot in slots:
                if not slot.armed:
                    slot.arm(HOLDING, 1)

    def _pause(self, fault: Fault) -> bool:
        lease_s = self._world.options.lease_s
        return self._world.slots[fault.worker].pause(lease_s + _between(BEYOND_LEASE_S, fault), READY_S)

    def _roll(self, fault: Fault) -> bool:
        with self._rolling:
            for slot in self._world.slots:
                slot.roll(self._world.options.grace_s, READY_S)
        return True

    def _fill_valkey(self, seconds: float) -> bool:
        """Let the server find its memory full for a while, as when other applications fill it."""
        with self._world.broker() as broker:
            broker.config_set("maxmemory", 1)
            time.sleep(seconds)
        with self._world.broker() as broker:
            broker.config_set("maxmemory", 0)
        return True

    def _fill_disk(self, fault: Fault) -> bool:
        with disk.tables_full(self._world.postgres, self._world.database_url) as refusals:
            # Nobody writes while Valkey is away too.
            ends_at = time.monotonic() + REFUSED_S
            while not refusals() and time.monotonic() < ends_at:
                time.sleep(0.1)
            time.sleep(_between(DISK_FULL_S, fault))
            return refusals() > 0

    def _fill_disk_of_wal(self, fault: Fault) -> bool:
        """Without room for its WAL the server ends; there is room again before its supervisor starts it."""
        disk.end_for_lack_of_wal(self._world.postgres, self._world.database_url)
        time.sleep(_between(WAL_FULL_S, fault))
        self._world.postgres.start()
        return True


def _between(span: tuple[float, float], fault: Fault) -> float:
    shortest, longest = span
    return shortest + (longest - shortest) * fault.fraction


def _restart(server: Server, number: signal.Signals, away_s: float = 0.0) -> bool:
    """End a server by a signal, wait, and start it again on the same data, as its supervisor would."""
    if number == signal.SIGKILL:
        server.kill()
    else:
        os.kill(server.pid, number)
        server.child.exited.wait()
    time.sleep(away_s)
    server.start()
    return True


def _cut(proxy: Proxy) -> bool:
    proxy.cut()
    return True


def _cut_replies(proxy: Proxy) -> bool:
    proxy.cut_replies(REPLIES_CUT)
    return True


def _stall(proxy: Proxy, seconds: float) -> bool:
    proxy.stall()
    time.sleep(seconds)
    proxy.flow()
    return True


def _refuse(proxy: Proxy, seconds: float) -> bool:
    proxy.refuse()
    time.sleep(seconds)
    proxy.flow()
    return True
