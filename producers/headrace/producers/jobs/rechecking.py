"""A look at the inputs of a job that has succeeded, from where its client is: which of them have changed since."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import HeadraceError
from headrace.contracts.jobs import STORE
from headrace.producers.jobs.errors import JobMoved

if TYPE_CHECKING:
    from headrace.bulk.storage.base import ObjectInfo
    from headrace.bulk.storage.opening import Storages
    from headrace.results_store.jobs.ledger import Ledger
    from headrace.results_store.jobs.records import InputFile, JobRow

#: Inputs of more files than this are not listed again.
MOST_FILES: Final = 100_000

#: The libraries of storages.
_NEEDED: Final = ("pyarrow", "obstore")


def check_unchanged(ledger: Ledger, job: JobRow, name: str) -> None:
    """Raise JobMoved if the inputs or the output of a succeeded job are others by now, as far as this client sees them.

    name: how the job is called. Locations that only workers reach are passed over, and so are queries.
    """
    if any(find_spec(each) is None for each in _NEEDED):
        return
    from headrace.bulk.sources.query import is_query
    from headrace.bulk.storage.opening import Storages
    from headrace.bulk.storage.roots import Roots
    from headrace.bulk.storage.uris import split

    if any(map(is_query, job.spec.inputs)):
        return
    places = [uri for uri in (*job.spec.inputs, job.spec.output) if uri != STORE]
    roots = {"/" if split(uri).is_local else f"{split(uri).scheme}://{split(uri).host}" for uri in places}
    storages = Storages(Roots(roots))
    try:
        moved = _moved_output(storages, job) or _moved_inputs(ledger, storages, job)
    except HeadraceError:
        return  # not reachable from here
    if moved:
        raise JobMoved(f"job {name} has succeeded, but since then {moved}")


def _moved_output(storages: Storages, job: JobRow) -> str:
    from headrace.bulk.sinks.output.names import SUCCESS, below
    from headrace.bulk.storage.base import InputMissing

    if job.spec.output == STORE:
        return ""
    try:
        storages.of(job.spec.output).stat(below(job.spec.output, SUCCESS))
    except InputMissing:
        return f"its output {job.spec.output} was removed: --restart scores everything anew"
    return ""


def _moved_inputs(ledger: Ledger, storages: Storages, job: JobRow) -> str:
    known = {file.uri: file for file in _files(ledger, job)}
    new: list[str] = []
    for number, info in enumerate(_listed(storages, job)):
        if number >= MOST_FILES:
            return ""
        before = known.pop(info.uri, None)
        if before is None:
            new.append(info.uri)
        elif _differs(before, info):
            return f"the input {info.uri} has changed: --restart scores everything anew"
    if known and not job.spec.limit:
        return f"the input {min(known)} is gone: --restart scores everything anew"
    if new and not job.spec.limit:
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        return f"there is a new input, {new[0]}{more}: --add-new scores what is new, --restart everything anew"
    return ""


def _listed(storages: Storages, job: JobRow) -> Iterator[ObjectInfo]:
    from headrace.bulk.storage.globs import expand

    for uri in job.spec.inputs:
        for page in expand(uri, storages.of(uri)):
            yield from page


def _files(ledger: Ledger, job: JobRow) -> Iterator[InputFile]:
    after = -1
    while page := ledger.jobs.files(job.id, after):
        yield from page
        after = page[-1].file_no


def _differs(before: InputFile, now: ObjectInfo) -> bool:
    """Return whether an object is another one. Of local files, inodes differ between the machines that share a disk."""
    if before.mtime_ns and now.mtime_ns and now.uri.startswith("/"):
        return (before.size, before.mtime_ns) != (now.size, now.mtime_ns)
    return before.size != now.size or bool(before.etag and now.etag and before.etag != now.etag)
