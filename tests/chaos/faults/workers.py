"""Faults of workers, of ordinary Celery workers beside them, and of clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from tests.chaos.cluster import Cluster
from tests.chaos.faults.spans import BEYOND_LEASE_S, CLOCK_OFF_S, between
from tests.chaos.kill_points import HOLDING, OF_REDELIVERED
from tests.chaos.schedule import Fault, Kind
from tests.chaos.unread import ask_and_die

Way: TypeAlias = Callable[[Fault], bool]

#: A restarted worker that isn't ready by then is left to itself; the end of the run tells.
READY_S: Final = 60.0


class WorkerFaults:
    """The faults of all processes that are not servers."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._options = cluster.options

    def ways(self) -> Mapping[Kind, Way]:
        """Return what does each kind; each says whether it was met."""
        slots, plain = self._cluster.slots, self._cluster.plain_slots
        return {
            Kind.KILL: lambda fault: slots[fault.worker].kill(READY_S),
            Kind.KILL_AT: self._kill_at,
            Kind.PAUSE: lambda fault: slots[fault.worker].pause(self._beyond_lease_s(fault), READY_S),
            Kind.ROLL: self._roll,
            Kind.CLOCK_STEP: self._step_clock,
            Kind.PLAIN_KILL: lambda fault: plain[fault.worker % len(plain)].kill(READY_S),
            Kind.PLAIN_PAUSE: lambda fault: plain[fault.worker % len(plain)].pause(
                self._beyond_lease_s(fault), READY_S
            ),
            Kind.PLAIN_TERM: lambda fault: plain[fault.worker % len(plain)].roll(self._options.grace_s, READY_S),
            Kind.CLIENT_DIES: lambda fault: ask_and_die(self._cluster, fault.at),
        }

    def let_others_die(self) -> None:
        """Where a worker is to die over what was delivered before, have others leave something to deliver again."""
        slots = self._cluster.slots
        if any(slot.next_point in OF_REDELIVERED for slot in slots):
            for slot in slots:
                if not slot.armed:
                    slot.arm(HOLDING, 1)

    def _beyond_lease_s(self, fault: Fault) -> float:
        return self._options.lease_s + between(BEYOND_LEASE_S, fault)

    def _kill_at(self, fault: Fault) -> bool:
        self._cluster.slots[fault.worker].arm(fault.point, fault.nth)
        if fault.point in OF_REDELIVERED:
            self.let_others_die()
        return True

    def _roll(self, fault: Fault) -> bool:
        return all(slot.roll(self._options.grace_s, READY_S) for slot in self._cluster.slots)

    def _step_clock(self, fault: Fault) -> bool:
        """Set a worker's wall clock an hour off, either way, and right again; its monotonic clock goes on."""
        slot = self._cluster.slots[fault.worker]
        off_s = CLOCK_OFF_S if fault.fraction < 0.5 else -CLOCK_OFF_S
        if not slot.set_clock(off_s, READY_S):
            return False
        time.sleep(self._beyond_lease_s(fault))
        slot.set_clock(0.0, READY_S)
        return True
