"""The ledger as a whole: its parts over one connection."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from headrace.results_store.database.bounded import ANSWER_S
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.control import JobControl
from headrace.results_store.jobs.dry_runs import DryRuns
from headrace.results_store.jobs.finishing import Finishes
from headrace.results_store.jobs.job_store import JobStore
from headrace.results_store.jobs.planning import Plans
from headrace.results_store.jobs.progress import ProgressStore
from headrace.results_store.jobs.shards.claiming import Claims
from headrace.results_store.jobs.shards.completing import Completions
from headrace.results_store.jobs.shards.running import RunningShards
from headrace.results_store.jobs.sweeping import Sweep


class Ledger:
    """The ledger of bulk jobs. For one thread; each call is one short transaction or a few.

    jobs: create and find jobs. control: pause, cancel, retry them. progress: how far they are. dry_runs: what these
    found. plans: plan jobs. claims: take shards. running: keep or give up claims. completions: end shards. finishes:
    publish manifests. sweep: what waits for workers. All raise StoreUnavailable.
    """

    def __init__(self, database_url: str, timeout_s: float = ANSWER_S) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. timeout_s: silence for so long is a lost server.

        Raises ConfigurationError when the URL can't be read.
        """
        self._connection = LedgerConnection(database_url, timeout_s)
        self.jobs = JobStore(self._connection)
        self.control = JobControl(self._connection)
        self.progress = ProgressStore(self._connection)
        self.dry_runs = DryRuns(self._connection)
        self.plans = Plans(self._connection)
        self.claims = Claims(self._connection)
        self.running = RunningShards(self._connection)
        self.completions = Completions(self._connection)
        self.finishes = Finishes(self._connection)
        self.sweep = Sweep(self._connection).sweep

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()
