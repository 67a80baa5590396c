"""The check of an output folder before a job writes into it: empty, or with outputs of the same job."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.marks import mark_at
from headrace.bulk.sinks.output.names import is_part
from headrace.bulk.sinks.output.overlap import mixed_input
from headrace.bulk.sinks.output.owner import identity_at
from headrace.bulk.storage.base import InputMissing, ObjectInfo, Storage
from headrace.contracts.jobs import ScoreSpec

#: Objects that are looked at before a job begins, which takes a second; the end of the job looks at all.
_LOOKED_AT: Final = 10_000


def check_output(storage: Storage, folder: str, spec: ScoreSpec, job: str) -> None:
    """Raise OutputTaken if a job can't write into a folder: it mixes with an input, is a file or holds something else.

    job: the id; its own outputs, of a run that was interrupted, are no obstacle.
    """
    mixed = mixed_input(folder, spec.inputs)
    if mixed is not None:
        raise OutputTaken(
            f"the output {folder} and the input {mixed} lie one in the other, so that outputs would become inputs; "
            "choose an output elsewhere, or one whose name begins with an underscore"
        )
    _check_is_folder(storage, folder)
    mark = mark_at(storage, folder)
    if mark is not None and mark.job != job:
        raise _taken(folder, mark.job)
    _check_content(storage, folder, job, known=mark is not None)


def listed(storage: Storage, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the visible objects of an output folder in order, by their name below it; none if there is no folder."""
    try:
        for page in storage.pages(folder):
            yield from ((info.uri[len(folder.rstrip("/")) + 1 :], info) for info in page)
    except InputMissing:
        return


def _check_is_folder(storage: Storage, folder: str) -> None:
    try:
        storage.stat(folder)
    except InputMissing:
        return
    raise OutputTaken(f"the output {folder} is a file; an output is a folder, so choose another name")


def _check_content(storage: Storage, folder: str, job: str, *, known: bool) -> None:
    """Look at names, and into the first part unless the folder is known to be the job's."""
    for name, info in islice(listed(storage, folder), _LOOKED_AT):
        if not is_part(name):
            raise OutputTaken(f"the output folder holds {info.uri}, which no job wrote; choose a folder that is empty")
        if not known:
            found = identity_at(storage, folder, name)
            if found is None:
                raise OutputTaken(f"{info.uri} is no part of a headrace job; choose a folder that is empty")
            if found.job != job:
                raise _taken(folder, found.job)
            known = True


def _taken(folder: str, job: str) -> OutputTaken:
    return OutputTaken(f"{folder} holds outputs of job {job}; choose another output, or --restart to replace them")
