"""The sweep: jobs that nobody moves on, and the tickets that wake workers for shards and plans that wait."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from headrace.contracts.jobs import Ticket
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.settling import settle

#: All jobs in which something may be to do, in the order of claims, which are few; the rest of the table is not read.
_LIVE: Final = """
    SELECT j.id, j.model, running.shards,
           (j.state IN ('planning', 'finalizing') OR j.manifest_due)
               AND (j.leader_until IS NULL OR j.leader_until < now()) AS leaderless,
           j.state = 'cancelling' AND running.shards = 0
               OR j.state = 'running' AND j.plan_done AND running.all_shards = 0
               AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 0) AS unsettled,
           CASE WHEN j.workers > 0 THEN greatest(0, j.workers - running.shards) ELSE %(most)s END AS allowed,
           CASE WHEN j.state IN ('planning', 'running') THEN ARRAY(
               SELECT s.shard_no FROM headrace_job_shards s
               WHERE s.job_id = j.id AND s.state = 1 AND s.lease_until < now() ORDER BY s.shard_no LIMIT %(most)s
           ) || ARRAY(
               SELECT s.shard_no FROM headrace_job_shards s
               WHERE s.job_id = j.id AND s.state = 0 AND (s.lease_until IS NULL OR s.lease_until < now())
               ORDER BY s.file_no, s.row_start LIMIT %(most)s
           ) ELSE '{}' END AS claimable
    FROM headrace_jobs j
    CROSS JOIN LATERAL (
        SELECT count(*) AS all_shards, count(*) FILTER (WHERE s.lease_until >= now()) AS shards
        FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 1
    ) running
    WHERE (j.state IN ('planning', 'running', 'paused', 'finalizing', 'cancelling') OR j.manifest_due)
      AND (%(models)s::text[] IS NULL OR j.model = ANY(%(models)s::text[]))
    ORDER BY j.priority DESC, j.created_at
"""

#: Tickets for each worker: one that it runs next while another is on the way.
TICKETS_PER_WORKER: Final = 2

#: The shard of a ticket that is for planning or finalizing.
PLAN: Final = -1


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The work that waits for the workers of a model: each is the job and the shard of a ticket.

    running: shards that run. claimable: shards that could be claimed, the most urgent first, up to a number.
    leaderless: jobs that wait for somebody to plan or finalize them.
    """

    model: str
    running: int
    claimable: list[tuple[uuid.UUID, int]]
    leaderless: list[uuid.UUID]


class Sweep:
    """Finds what waits, and moves on what nobody moves on. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def sweep(self, models: Iterable[str] | None = None, most: int = 64) -> list[Load]:
        """Return what waits for the workers of each model, of all or of some, and settle jobs that had no worker to.

        most: shards that are looked at for each job. Costs one short query when there is no job.
        """
        values = {"models": None if models is None else list(models), "most": most}
        live = self._connection.rows(_LIVE, values)
        for job_id, _model, _running, _leaderless, unsettled, *_ in live:
            if unsettled:
                settle(self._connection, job_id)
        loads: dict[str, Load] = {}
        for job_id, model, running, leaderless, _unsettled, allowed, shards in live:
            load = loads.get(model, Load(model=model, running=0, claimable=[], leaderless=[]))
            loads[model] = Load(
                model=model,
                running=load.running + running,
                claimable=load.claimable + [(job_id, shard) for shard in shards[: min(allowed, most)]],
                leaderless=load.leaderless + ([job_id] if leaderless else []),
            )
        return list(loads.values())


def tickets_to_send(load: Load, queued: int, workers: int) -> list[Ticket]:
    """Return the tickets that a model's queue lacks: of what is most urgent, up to a window.

    queued: tickets that are in the broker by now, waiting or held by workers. workers: that serve the model.
    A ticket is a wake-up for any shard, so it does not matter which of them were lost or sent twice: only how many
    there are. Never more are in the broker than two for each worker and one for each shard that runs.
    """
    wanted: Sequence[tuple[uuid.UUID, int]] = [*((job, PLAN) for job in load.leaderless), *load.claimable]
    window = TICKETS_PER_WORKER * max(1, workers) + load.running
    # Shards that run have their tickets in the broker as well.
    missing = min(window, len(wanted) + load.running) - queued
    return [Ticket(job=str(job), shard=shard) for job, shard in wanted[: max(0, missing)]]
