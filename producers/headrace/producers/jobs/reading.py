"""Readings of the ledger as progress."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from headrace.producers.jobs.progress import Estimator, Progress

if TYPE_CHECKING:
    from headrace.results_store.jobs.ledger import Ledger


def progress_of(ledger: Ledger, job_id: uuid.UUID, estimator: Estimator, now: float) -> Progress:
    """Read how far a job is. now: seconds of a clock that doesn't go back."""
    raise NotImplementedError
