"""A first look at a job's inputs: what the first one is, and how large all are if that is quickly known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from headrace.bulk.planning.planner import file_of
from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.globs import expand
from headrace.contracts.jobs import ScoreSpec
from headrace.results_store.jobs.records import InputFile

#: Files that are listed for it; what are more are counted when all are planned.
MOST_FILES: Final = 5_000


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of a first look at the inputs.

    first: the first input file, None if there is none. bytes_total: None if not known. files: that were looked at.
    """

    first: InputFile | None
    bytes_total: int | None
    files: int = 0


def survey(spec: ScoreSpec, storage_of: Callable[[str], Storage]) -> Survey:
    """Look at the inputs of a job. Raises what storages raise, InputMissing among them."""
    first: InputFile | None = None
    files = total = 0
    for uri in spec.inputs:
        for page in expand(uri, storage_of(uri)):
            for info in page:
                if first is None:
                    first = file_of(info, 0, spec)
                files += 1
                total += info.size
            if files > MOST_FILES:
                return Survey(first=first, bytes_total=None, files=files)
    return Survey(first=first, bytes_total=total, files=files)
