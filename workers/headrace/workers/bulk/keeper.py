"""The keeper: heartbeats of the shards that run, and sweeps for shards that nobody was woken for."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from headrace.results_store.jobs.ledger import Ledger
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.shards.control import ShardControl
from headrace.workers.bulk.shards.slots import Slots
from headrace.workers.process.fatal_thread import fatal_thread

#: Heartbeats in a lease: two may fail, and the shard is still this worker's.
BEATS: Final = 4

#: A worker that has nothing to do with bulk jobs looks for forgotten ones this often, with one short query.
IDLE_S: Final = 30.0

#: Between heartbeats while the last shards of a worker that stops are published.
STOPPING_S: Final = 0.1


class Keeper:
    """A thread that keeps the claims of this worker's shards, and wakes workers for work that waits."""

    def __init__(self, desk: Desk, slots: Slots) -> None:
        """Nothing runs yet."""
        self._desk = desk
        self._slots = slots
        self._live = False
        self._thread = fatal_thread("headrace-bulk-keeper", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _loop(self) -> None:
        desk = self._desk
        beat_s = desk.settings.lease_s / BEATS
        swept_at = float("-inf")
        with desk.ledger() as ledger:
            while True:
                seen, controls = desk.seen(), self._slots.running()
                if desk.stopping.is_set() and not controls:
                    return
                for control in controls:
                    desk.attempt(partial(self._beat, ledger, control))
                now = time.monotonic()
                # While there is a job, the shards of a worker that died, and those put off, are waited for as well.
                busy = bool(controls) or self._live
                if now - swept_at >= (2 * beat_s if busy else IDLE_S) and not desk.stopping.is_set():
                    swept_at = now
                    desk.attempt(partial(self._sweep, ledger))
                if desk.stopping.is_set():
                    time.sleep(STOPPING_S)
                else:
                    desk.wait(seen, beat_s if busy else IDLE_S)

    def _beat(self, ledger: Ledger, control: ShardControl) -> bool:
        found = ledger.running.heartbeat(control.claim, self._desk.settings.lease_s, control.rows, control.wall_s)
        control.obey(found)
        return True

    def _sweep(self, ledger: Ledger) -> bool:
        loads = ledger.sweep(self._desk.models.names())
        self._live = bool(loads)
        for load in loads:
            self._desk.wake_workers(load)
        if any(load.running or load.claimable or load.leaderless for load in loads):
            self._desk.saw_work()
        if loads:
            self._desk.wake()
        return True
