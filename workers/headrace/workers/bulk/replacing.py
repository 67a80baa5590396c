"""Room for a job that was restarted: the output of its earlier run is removed before anything is planned."""

from __future__ import annotations

import uuid

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.removal import remove_output
from headrace.bulk.storage.base import Storage
from headrace.contracts.jobs import ENDED, STORE
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import JobRow, Part


def make_room(ledger: Ledger, job: JobRow, storage: Storage) -> bool:
    """Remove the output of whichever earlier run of a job its folder holds; return False while one still runs shards.

    Rows in the store stay: they have a job of their own. Raises OutputTaken if the folder holds anything else.
    """
    if not job.replaces or job.spec.output == STORE:
        return True
    if any(ledger.jobs.get(earlier).state not in ENDED for earlier in job.replaces):
        return False
    taken: OutputTaken | None = None
    for earlier in job.replaces:
        try:
            remove_output(storage, job.spec.output, str(earlier), _etags(ledger, earlier))
        except OutputTaken as exc:  # of a run before that one, perhaps
            taken = taken or exc
        else:
            return True
    raise taken or OutputTaken


def _etags(ledger: Ledger, job: uuid.UUID) -> dict[str, str]:
    """Return the etags of the parts that a job has published, by their names."""
    found: dict[str, str] = {}
    last: Part | None = None
    while page := ledger.finishes.parts(job, last):
        found |= {part.name: part.etag for part in page if part.name}
        last = page[-1]
    return found
