"""Errors that only clients of bulk jobs meet.

HeadraceError
├── JobMoved            the job was begun with something else than what is there now
├── JobFailed
├── JobCancelled
└── JobTimeout
"""

from __future__ import annotations

from headrace.contracts.errors import HeadraceError


class JobMoved(HeadraceError):
    """The job was begun with another version or package of the model; --restart or --keep-version decides."""


class JobFailed(HeadraceError):
    """The job failed; `headrace jobs show ID` prints why, and the same command again runs what is missing."""


class JobCancelled(HeadraceError):
    """The job was cancelled; what was done is kept, and the same command again runs what is missing."""


class JobTimeout(HeadraceError, TimeoutError):
    """The job has not ended within the time given; it goes on, and `Job.wait` may be called again."""

    retriable = True
