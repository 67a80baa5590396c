"""The jobs of which this worker has run shards lately, opened once each."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Final

from headrace.bulk.shards.job import OpenJob
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import JobRow
from headrace.workers.bulk.desk import Desk

#: Jobs that are kept open; what one holds is small.
KEPT: Final = 8


class OpenJobs:
    """Opens jobs for one thread."""

    def __init__(self, desk: Desk, ledger: Ledger) -> None:
        """Nothing is open yet."""
        self._desk = desk
        self._ledger = ledger
        self._open: OrderedDict[uuid.UUID, OpenJob] = OrderedDict()

    def of(self, job: JobRow) -> OpenJob:
        """Return an open job. Raises HeadraceError: whoever tries again has the same error."""
        found = self._open.get(job.id)
        if found is None:
            package = self._desk.package_of(job)
            (first,) = self._ledger.jobs.files(job.id, most=1)  # a shard has files
            found = self._open[job.id] = OpenJob(job, package, self._desk.storages(), first)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return found
