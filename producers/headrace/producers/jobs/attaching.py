"""The same command again: which step a job that is there already needs, and what has moved since."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from headrace.contracts.jobs import JobProblem, JobState
from headrace.producers.jobs.errors import JobMoved
from headrace.producers.jobs.order import Wishes
from headrace.producers.jobs.pinning import Pin

if TYPE_CHECKING:
    from headrace.results_store.jobs.records import JobRow

#: How much of a checksum is told.
_SHOWN: Final = 12

#: Type of a job's problem → the option that decides what happens next.
_REMEDIES: Final = {
    "InputChanged": "--restart scores everything anew",
    "NewFiles": "--add-new scores the new files too, --restart everything anew",
    "TooManyErrors": "a higher --max-errors lets it go on",
    "AlreadyExists": "choose another --output, or remove what is there",
}


class Step(StrEnum):
    """The ways to go on with a job that is there."""

    ATTACH = "attach"
    RESUME = "resume"
    RESTART = "restart"
    ADD_NEW = "add new"
    REPORT = "report"


_BY_STATE: Final = {
    JobState.PLANNING: Step.ATTACH,
    JobState.RUNNING: Step.ATTACH,
    JobState.FINALIZING: Step.ATTACH,
    JobState.SUCCEEDED: Step.REPORT,
    JobState.PAUSED: Step.RESUME,
    JobState.FAILED: Step.RESUME,
    JobState.CANCELLING: Step.RESUME,
    JobState.CANCELLED: Step.RESUME,
}


def next_step(job: JobRow, pin: Pin, wishes: Wishes) -> Step:
    """Return what is done with a job of the same identity. pin: what a new job would be pinned to now.

    Raises JobMoved when that differs from what the job was begun with and no option decides.
    """
    if wishes.restart:
        return Step.RESTART
    moved = what_moved(job, pin)
    if moved and not wishes.keep_version:
        raise JobMoved(
            f"job {short(job)} was begun with {moved}: --keep-version goes on as it was begun, "
            "--restart scores everything anew"
        )
    return Step.ADD_NEW if wishes.add_new else _BY_STATE[job.state]


def what_moved(job: JobRow, pin: Pin) -> str:
    """Return, as a phrase, what of the model is another than when a job was begun; "" if nothing is."""
    if job.version != pin.version:
        return f"version {job.version} of {job.spec.model}, and {pin.version} is served now"
    if job.package_sha256 and pin.checksum and job.package_sha256 != pin.checksum:
        return (
            f"another package of {job.spec.model} {job.version} "
            f"(checksum {job.package_sha256[:_SHOWN]}…, now {pin.checksum[:_SHOWN]}…)"
        )
    return ""


def why_failed(job_error: str) -> str:
    """Return why a job failed, with the option that decides what happens next. job_error: as the ledger has it."""
    problem = JobProblem.parse(job_error)
    remedy = _REMEDIES.get(problem.type, "")
    known = any(word in problem.message for word in remedy.replace(",", "").split() if word.startswith("--"))
    return problem.message if known or not remedy else f"{problem.message}; {remedy}"


def short(job: JobRow) -> str:
    """Return how a job is called in a line: its name, or the end of its id; ids of one minute begin alike."""
    return job.name or str(job.id)[-8:]
