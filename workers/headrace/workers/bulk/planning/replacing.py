"""Room for a job that was restarted: the output of its earlier run is removed before anything is planned."""

from __future__ import annotations

import uuid

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.removal import remove_output
from headrace.bulk.storage.base import Storage
from headrace.contracts import HeadraceError
from headrace.contracts.jobs import ENDED, STORE
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import JobRow, Part


class EarlierRunGoesOn(HeadraceError):
    """The earlier run of a job that was restarted still has shards that run; they end within a lease."""

    retriable = True


def make_room(ledger: Ledger, job: JobRow, storage: Storage) -> None:
    """Remove the output of whichever earlier run of a job its folder holds.

    Rows in the store stay: they are of a job of their own. Raises OutputTaken if the folder holds anything else;
    EarlierRunGoesOn, and then nothing is removed.
    """
    if not job.replaces or job.spec.output == STORE:
        return
    if any(ledger.jobs.get(earlier).state not in ENDED for earlier in job.replaces):
        raise EarlierRunGoesOn
    taken: OutputTaken | None = None
    for earlier in job.replaces:
        try:
            remove_output(storage, job.spec.output, str(earlier), _etags(ledger, earlier))
        except OutputTaken as exc:  # of a run before that one, perhaps
            taken = taken or exc
        else:
            return
    raise taken or OutputTaken


def _etags(ledger: Ledger, job: uuid.UUID) -> dict[str, str]:
    """Return the etags of the parts that a job has published, by their names."""
    found: dict[str, str] = {}
    last: Part | None = None
    while page := ledger.finishes.parts(job, last):
        found |= {part.name: part.etag for part in page if part.name}
        last = page[-1]
    return found
