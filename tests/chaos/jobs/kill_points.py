"""The places in the life of a bulk job where a worker can be made to die."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from tests.chaos.kill_points import Trigger

#: Set in the environment of workers that have these points.
SWITCH: Final = "HEADRACE_CHAOS_JOBS"

#: In the order in which a job passes them.
POINTS: Final = (
    "page planned, not committed",
    "page committed",
    "shard claimed",
    "before a batch",
    "part published in the middle",
    "part published, not committed",
    "shard committed",
    "errors published",
    "before the manifest",
    "manifest written, no _SUCCESS",
    "_SUCCESS written, not committed",
)

#: These are passed many times in a job, the others once or a few times.
OFTEN: Final = ("shard claimed", "before a batch", "part published, not committed", "shard committed")


def install_job_points(trigger: Trigger) -> None:
    """Wrap the product's functions at the seams."""
    from headrace.bulk.shards import attempt
    from headrace.bulk.sinks.finishing.error_parts import ErrorParts
    from headrace.bulk.sinks.finishing.finalizer import Finalizer
    from headrace.bulk.storage.local import writing
    from headrace.results_store.jobs.planning import Plans
    from headrace.results_store.jobs.shards.claiming import Claims
    from headrace.results_store.jobs.shards.completing import Completions
    from headrace.workers.bulk.shards.execution import BulkExecution

    passed = trigger.passed
    _around(Plans, "add_page", lambda *_: passed(POINTS[0]), lambda _: passed(POINTS[1]))
    _around(Claims, "claim", None, lambda found: found is not None and passed("shard claimed"))
    _around(BulkExecution, "run", lambda *_: passed("before a batch"), None)
    _around(attempt.Attempt, "_publish", None, lambda part: part.part and passed("part published, not committed"))
    _around(Completions, "complete", None, lambda _: passed("shard committed"))
    _around(ErrorParts, "publish", lambda *_: passed("errors published"), None)
    _around(Finalizer, "_write_manifest", lambda *_: passed("before the manifest"), lambda _: passed(POINTS[9]))
    _around(Finalizer, "run", None, lambda _: passed("_SUCCESS written, not committed"))
    # What is to be linked is whole by then, and has no name yet.
    _around(writing, "link", lambda *_: passed("part published in the middle"), None)


def _around(owner: Any, name: str, before: Callable[..., object] | None, after: Callable[[Any], object] | None) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = inner(*args, **kwargs)
        if after is not None:
            after(result)
        return result

    setattr(owner, name, outer)
