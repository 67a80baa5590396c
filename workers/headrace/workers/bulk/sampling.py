"""Dry runs: a worker scores the first rows of a job on its executor, and leaves what it found in the ledger."""

from __future__ import annotations

from typing import Final

from headrace.bulk.planning.cutting import CutPolicy
from headrace.bulk.planning.planner import Planner, read_cursor
from headrace.bulk.planning.survey import Survey
from headrace.bulk.shards.job import OpenJob
from headrace.bulk.shards.sampling import Sampler, Whole
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import PlanLease
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.execution import BulkExecution, ShardInference
from headrace.workers.bulk.opening import loaded_model
from headrace.workers.models.table import ModelTable

#: Slices of a sample at most: each is twice as long as the one before, and the time is up before the last.
_SLICES: Final = 12


class DryRunner:
    """Runs dry runs, in the thread that plans."""

    def __init__(self, desk: Desk, models: ModelTable, execution: BulkExecution) -> None:
        """execution: of the worker's bulk batches."""
        self._desk = desk
        self._models = models
        self._execution = execution

    def run(self, ledger: Ledger, lease: PlanLease, found: Survey, policy: CutPolicy) -> None:
        """Score a sample, and keep what it shows. Raises what a shard raises."""
        job = lease.job
        storages = self._desk.storages()
        page = Planner(job.spec, storages.of, read_cursor(b"")).page(_SLICES, policy)
        first = page.files[0] if page.files else found.first
        if first is None:
            ledger.plans.fail(lease, "InputMissing: there is no row in the input; check the path")
            return
        opened = OpenJob(job, self._desk.package_of(job), storages, first)
        inference = ShardInference(self._execution, loaded_model(self._models, job))
        sampler = Sampler(opened, inference, self._desk.scratch)
        sampler.run(page.slices, page.files)
        counted = page.done and all(part.rows >= 0 for part in page.slices)
        whole = Whole(
            bytes_total=found.bytes_total,
            rows_total=sum(part.rows for part in page.slices) if counted else None,
            workers=self._desk.workers_of(job.spec.model),
        )
        ledger.dry_runs.keep(job.id, sampler.found(whole))
