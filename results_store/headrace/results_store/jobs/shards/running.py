"""Shards that run: heartbeats, suspects, and what becomes of a shard that its worker can't complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headrace.contracts.jobs import ENDED, JobState
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import Claim, Directive, Order
from headrace.results_store.jobs.rows import storable
from headrace.results_store.jobs.settling import lock, settle, stop

#: What each statement about a claim begins with: nothing happens if somebody else has the shard by now.
FENCE: Final = "job_id = %(job)s AND shard_no = %(shard)s AND attempt = %(attempt)s AND state = 1"

#: No index has a column of these, so that the new version of the row stays in its page. Rows that are tried again have
#: been counted before.
_HEARTBEAT: Final = f"""
    UPDATE headrace_job_shards s
    SET lease_until = now() + %(lease_s)s * interval '1 second', wall_s = %(wall_s)s,
        rows_seen = CASE WHEN s.retry = 0 THEN greatest(s.rows_seen, %(rows)s) ELSE 0 END
    FROM headrace_jobs j
    WHERE {FENCE} AND j.id = s.job_id
    RETURNING j.state, j.max_rows_per_s
""".replace("state = 1", "s.state = 1")  # noqa: S608

_RUNNING: Final = """
    SELECT count(*) FROM headrace_job_shards WHERE job_id = %(job)s AND state = 1 AND lease_until >= now()
"""

_SUSPECT: Final = f"""
    UPDATE headrace_job_shards SET suspect_from = %(from)s, suspect_to = %(to)s WHERE {FENCE}
"""  # noqa: S608

_RELEASE: Final = f"""
    UPDATE headrace_job_shards
    SET state = %(state)s, worker = '', process = '', claimed_at = NULL, wall_s = 0,
        lease_until = now() + %(delay_s)s * interval '1 second'
    WHERE {FENCE}
"""  # noqa: S608

#: The shards that run. Few jobs are alive, and few shards of them run.
_LEASED: Final = """
    j.state IN ('planning', 'running', 'paused', 'cancelling') AND s.job_id = j.id AND s.state = 1
    AND s.lease_until >= now()
"""

_HOLDERS: Final = f"""
    SELECT DISTINCT s.process FROM headrace_jobs j, headrace_job_shards s
    WHERE {_LEASED} AND s.worker = %(worker)s AND s.process <> ''
"""  # noqa: S608

_LAPSE: Final = f"""
    UPDATE headrace_job_shards s SET lease_until = now() - interval '1 microsecond'
    FROM headrace_jobs j
    WHERE {_LEASED} AND s.process = ANY(%(processes)s)
"""  # noqa: S608

_PENDING: Final = 0
_CANCELLED: Final = 3

_STOPPED: Final = ENDED | {JobState.CANCELLING}


class RunningShards:
    """Keeps claims, or gives them up. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def lapse(self, worker: str, is_gone: Callable[[str], bool]) -> int:
        """End the leases that ended processes of a worker's name have; return of how many shards.

        For a worker that begins, so that nobody need wait for the leases of its predecessor to pass. is_gone: whether
        a process has ended for certain, by its identity; others of this name may be alive, in containers of one host
        name.
        """
        holders = [process for (process,) in self._connection.rows(_HOLDERS, {"worker": worker})]
        gone = list(filter(is_gone, holders))
        return self._connection.change(_LAPSE, {"processes": gone}) if gone else 0

    def heartbeat(self, claim: Claim, lease_s: float, rows: int = 0, wall_s: float = 0.0) -> Directive:
        """Keep a claim for another `lease_s`; return what to do with the shard.

        rows: of the shard that are done. wall_s: for how long it has been the one that the worker runs.
        """
        values = {**fence(claim), "lease_s": lease_s, "rows": rows, "wall_s": wall_s}
        found = self._connection.rows(_HEARTBEAT, values)
        if not found:
            return Directive(Order.LOST)
        state, max_rows_per_s = found[0]
        if state in _STOPPED:
            return Directive(Order.CANCEL)
        if state == JobState.PAUSED:
            return Directive(Order.PAUSE)
        if not max_rows_per_s:
            return Directive(Order.GO_ON)
        running = self._connection.rows(_RUNNING, values)[0][0]
        return Directive(Order.GO_ON, max_rows_per_s / max(1, running))

    def mark_suspect(self, claim: Claim, positions: tuple[int, int] | None) -> bool:
        """Note which positions of the shard run next (from, to before), or that nobody knows; False if it is lost.

        If the worker dies, these alone are suspect.
        """
        first, end = positions or (None, None)
        return self._connection.change(_SUSPECT, {**fence(claim), "from": first, "to": end}) == 1

    def release(self, claim: Claim, delay_s: float = 0.0) -> bool:
        """Return a shard undone, for any worker to claim; False if it was lost.

        delay_s: nobody claims it before, for trouble that passes. It counts as no death.
        """
        values = {**fence(claim), "delay_s": delay_s}
        with self._connection.transaction() as connection:
            state = lock(connection, claim.job.id)
            values["state"] = _CANCELLED if state is None or state in _STOPPED else _PENDING
            released = connection.execute(_RELEASE, values).rowcount == 1
        settle(self._connection, claim.job.id)
        return released

    def cancel_shard(self, claim: Claim) -> bool:
        """Drop a shard, as one that was revoked or whose job is cancelled; return False if it was lost.

        The job goes on without it, and fails in the end with rows that are missing, unless it is resumed.
        """
        values = {**fence(claim), "delay_s": 0.0, "state": _CANCELLED}
        cancelled = self._connection.change(_RELEASE, values) == 1
        settle(self._connection, claim.job.id)
        return cancelled

    def fail_job(self, claim: Claim, error: str) -> bool:
        """Fail the job of a shard that can't be done by anybody; return False if the shard was lost.

        error: the cause, with a remedy.
        """
        values = {**fence(claim), "delay_s": 0.0, "state": _CANCELLED}
        with self._connection.transaction() as connection:
            lock(connection, claim.job.id)
            if connection.execute(_RELEASE, values).rowcount == 0:
                return False
            stop(connection, claim.job.id, JobState.FAILED, storable(error))
        settle(self._connection, claim.job.id)
        return True


def fence(claim: Claim) -> dict[str, Any]:
    """Return the values of `FENCE`."""
    return {"job": claim.job.id, "shard": claim.shard_no, "attempt": claim.attempt}
