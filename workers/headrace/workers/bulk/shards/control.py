"""The control of one shard: what it is told by the ledger, by people and by the end of the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from headrace.bulk.shards.run import Directive
from headrace.results_store.jobs.records import Claim, Order
from headrace.results_store.jobs.records import Directive as Heartbeat

#: A shard that has taken so long publishes what is done, and the rest becomes a shard of its own: it was cut too large,
#: or this worker is slow. Four times what is aimed at.
LONGEST_S: Final = 60.0


class ShardControl:
    """The state of one running shard, and what it is told.

    `directive` and `progress` are for its thread, all else for any.

    rows: done so far. max_rows_per_s: its share of the job's bound; 0 is none. cancelled: whether nobody is to do it.
    """

    def __init__(self, claim: Claim, is_revoked: Callable[[], bool], number: int = 0) -> None:
        """is_revoked: whether the shard was revoked by Flower or another Celery client. number: among all claims."""
        self.claim: Final = claim
        self.key: Final = (str(claim.job.id), claim.shard_no)
        self.order: Final = (-claim.job.options.priority, number)
        self.rows = 0
        self.max_rows_per_s = 0.0
        self.cancelled = False
        self.began: Final = time.monotonic()
        self._is_revoked = is_revoked
        self._told: Directive = Directive.GO
        self._lock = threading.Lock()

    def directive(self) -> Directive:
        """Return what to do."""
        if self._is_revoked():
            self.cancel()
        # An earlier attempt may have published a part that accounts for more than this one gets done in that time.
        longest_s = LONGEST_S * 2 ** min(self.claim.attempt - 1, 6)
        if self._told is Directive.GO and self.rows and self.wall_s > longest_s:
            return Directive.STOP
        return self._told

    def progress(self, rows: int) -> None:
        """Take note of how many rows are done."""
        self.rows = rows

    @property
    def wall_s(self) -> float:
        """How long the shard has been running."""
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Have what is done published, and the rest left to others."""
        with self._lock:
            if self._told is Directive.GO:
                self._told = Directive.STOP

    def drop(self) -> None:
        """Have nothing of it published: somebody else has it by now."""
        with self._lock:
            self._told = Directive.DROP

    def cancel(self) -> None:
        """Have nothing of it published, now or later."""
        self.cancelled = True
        self.drop()

    def obey(self, found: Heartbeat) -> None:
        """Do as the ledger says."""
        if found.order is Order.GO_ON:
            self.max_rows_per_s = found.max_rows_per_s
        elif found.order is Order.LOST:
            self.drop()
        elif found.order is Order.CANCEL:
            self.cancel()
        elif found.order is Order.PAUSE:
            self.stop()
