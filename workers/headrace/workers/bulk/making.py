"""Making the bulk side of a worker, where its libraries are installed (`headrace[bulk]`)."""

from __future__ import annotations

from collections.abc import Callable, Container
from importlib.util import find_spec
from typing import Final, Protocol

from headrace.contracts import Settings
from headrace.workers.events.celery_events import Monitor
from headrace.workers.execution.executor import Executor
from headrace.workers.models.table import ModelTable

#: Libraries without which a worker takes no tickets.
_NEEDED: Final = ("pyarrow", "obstore")


class Bulk(Protocol):
    """The bulk side of a worker."""

    def start(self) -> None:
        """Start its threads."""
        ...

    def wake(self) -> None:
        """Look into the ledger, because a ticket has come; any thread."""
        ...

    def room(self) -> int:
        """Return how many tickets may be claimed."""
        ...

    def stop(self) -> None:
        """Claim nothing more; shards that run publish what is done, and leave the rest to others."""
        ...

    def join(self, deadline: float, hurried: Callable[[], bool]) -> bool:
        """Wait until a monotonic time for what runs to be published; False when it was not."""
        ...


class NoBulk:
    """A worker without the libraries of bulk jobs."""

    def start(self) -> None:
        """Do nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def room(self) -> int:
        """Return 0: no ticket is claimed."""
        return 0

    def stop(self) -> None:
        """Do nothing."""

    def join(self, deadline: float, hurried: Callable[[], bool]) -> bool:  # noqa: ARG002 — as in `Bulk`
        """Return True at once."""
        return True


def has_bulk() -> bool:
    """Return whether the libraries of bulk jobs are installed; loads none of them."""
    return all(find_spec(name) is not None for name in _NEEDED)


def make_bulk(
    settings: Settings,
    worker: str,
    models: ModelTable,
    executor: Executor,
    *,
    revoked: Container[str],
    monitor: Monitor,
) -> Bulk:
    """Return the bulk side of a worker. revoked: ids of cancelled requests and shards."""
    return LazyBulk(settings, worker, models, executor, revoked=revoked, monitor=monitor) if has_bulk() else NoBulk()
