"""The keeper: heartbeats of the shards that run, and sweeps for shards that nobody was woken for."""

from __future__ import annotations

import time
from typing import Final

from headrace.contracts.jobs import Ticket
from headrace.results_store.jobs.ledger import Ledger
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.slots import Slots
from headrace.workers.process.fatal_thread import fatal_thread

#: Heartbeats in a lease: two may fail, and the shard is still this worker's.
BEATS: Final = 4

#: A worker that has nothing to do with bulk jobs looks for forgotten ones this often, with one short query.
IDLE_S: Final = 30.0


class Keeper:
    """A thread that keeps the claims of this worker's shards, and wakes workers for work that waits."""

    def __init__(self, desk: Desk, slots: Slots) -> None:
        """Nothing runs yet."""
        self._desk = desk
        self._slots = slots
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
                controls = self._slots.running()
                if desk.stopping.is_set() and not controls:
                    return
                for control in controls:
                    desk.attempt(lambda control=control: self._beat(ledger, control))
                now = time.monotonic()
                every_s = 2 * beat_s if controls else IDLE_S
                if now - swept_at >= every_s and not desk.stopping.is_set():
                    swept_at = now
                    desk.attempt(lambda: self._sweep(ledger))
                desk.wait(desk.seen(), beat_s if controls else IDLE_S) if not desk.stopping.is_set() else time.sleep(0.1)

    def _beat(self, ledger: Ledger, control) -> bool:
        found = ledger.running.heartbeat(control.claim, self._desk.settings.lease_s, control.rows, control.wall_s)
        control.obey(found)
        return True
