"""Completing a shard: its counts, its bad rows, its predictions and what is left of it, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from headrace.contracts.errors import HeadraceError
from headrace.contracts.jobs import ENDED, JobState
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import Claim, Completion, ShardResult, Slice
from headrace.results_store.jobs.rows import SLICE_FIELDS, copy_bad_rows
from headrace.results_store.jobs.settling import settle, stop_at_bound
from headrace.results_store.jobs.shards.predicting import copy_predictions, encoded
from headrace.results_store.jobs.shards.running import FENCE, fence
from headrace.results_store.writing.columns import Columns
from headrace.results_store.writing.rows import BatchRows

_NEXT_SHARD: Final = """
    UPDATE headrace_jobs SET next_shard = next_shard + 1 WHERE id = %(job)s RETURNING next_shard - 1, state
"""

_DONE: Final = f"""
    UPDATE headrace_job_shards
    SET state = 2, finished_at = now(), lease_until = NULL,
        rows = %(rows)s, files = %(files)s, size_bytes = %(size_bytes)s,
        rows_ok = %(rows_ok)s, rows_bad = %(rows_bad)s, rows_skipped = %(rows_skipped)s,
        part = %(part)s, part_etag = %(part_etag)s, part_bytes = %(part_bytes)s, bytes_read = %(bytes_read)s,
        wall_s = %(served_s)s, read_s = %(read_s)s, decode_s = %(decode_s)s, infer_s = %(infer_s)s,
        write_s = %(write_s)s
    WHERE {FENCE}
    RETURNING rows_seen, suspect_from, suspect_to
"""  # noqa: S608

_IS_DONE: Final = """
    SELECT FROM headrace_job_shards
    WHERE job_id = %(job)s AND shard_no = %(shard)s AND attempt = %(attempt)s AND state = 2
"""

_INSERT_REST: Final = f"""
    INSERT INTO headrace_job_shards (
        job_id, shard_no, state, retry, deaths, suspect_from, suspect_to, rows_seen, {", ".join(SLICE_FIELDS)}
    )
    VALUES (
        %(job)s, %(rest)s, %(state)s, %(retry)s, %(deaths)s, %(suspect_from)s, %(suspect_to)s, %(rows_seen)s,
        {", ".join(f"%({name})s" for name in SLICE_FIELDS)}
    )
"""  # noqa: S608

#: Bad rows that a retry did not come to are those of the shard that goes on with it.
_HAND_ON: Final = """
    UPDATE headrace_job_errors SET shard_no = %(rest)s
    WHERE job_id = %(job)s AND shard_no = %(shard)s AND (file_no, row) >= (%(file_no)s, %(row_start)s)
"""

_TAKE_OVER: Final = "DELETE FROM headrace_job_errors WHERE job_id = %(job)s AND shard_no = %(shard)s"

_COUNT: Final = """
    INSERT INTO headrace_job_workers AS w (
        job_id, worker, shards, served_s, read_s, decode_s, infer_s, write_s,
        rows_ok, rows_bad, rows_skipped, size_bytes, bytes_read, part_bytes
    )
    SELECT s.job_id, s.worker, 1, s.wall_s, s.read_s, s.decode_s, s.infer_s, s.write_s,
           s.rows_ok, s.rows_bad, s.rows_skipped, s.size_bytes, s.bytes_read, s.part_bytes
    FROM headrace_job_shards s WHERE s.job_id = %(job)s AND s.shard_no = %(shard)s
    ON CONFLICT (job_id, worker) DO UPDATE SET
        shards = w.shards + excluded.shards, served_s = w.served_s + excluded.served_s,
        read_s = w.read_s + excluded.read_s, decode_s = w.decode_s + excluded.decode_s,
        infer_s = w.infer_s + excluded.infer_s, write_s = w.write_s + excluded.write_s,
        rows_ok = w.rows_ok + excluded.rows_ok, rows_bad = w.rows_bad + excluded.rows_bad,
        rows_skipped = w.rows_skipped + excluded.rows_skipped, size_bytes = w.size_bytes + excluded.size_bytes,
        bytes_read = w.bytes_read + excluded.bytes_read, part_bytes = w.part_bytes + excluded.part_bytes
"""

_STOPPED: Final = ENDED | {JobState.CANCELLING}


class CountMismatch(HeadraceError):
    """A shard has other rows than its slice; its input is another one than when it was planned."""


class _Lost(Exception):
    """Somebody else has the shard; undoes the transaction."""


class Completions:
    """Completes shards. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def complete(self, claim: Claim, result: ShardResult, predictions: Sequence[BatchRows] = ()) -> Completion:
        """Note what came of a shard, and store its predictions if the output is the store, all or nothing.

        May be repeated after StoreUnavailable: what was stored is not stored again. predictions: have ids of their
        own that no other row has, such as follow from the job and the row.
        Raises CountMismatch when the rows of the result are not those of the slice, and StoreRejected, which names the
        predictions that Postgres refuses; without these it takes the others.
        """
        columns = encoded(predictions)
        try:
            with self._connection.transaction() as connection:
                _store(connection, claim, result, columns)
        except _Lost:
            if not self._connection.rows(_IS_DONE, fence(claim)):
                return Completion(stored=False, state=settle(self._connection, claim.job.id) or JobState.CANCELLED)
        if result.bad:
            stop_at_bound(self._connection, claim.job.id)
        return Completion(stored=True, state=settle(self._connection, claim.job.id) or JobState.CANCELLED)


def _store(connection: BoundedConnection, claim: Claim, result: ShardResult, predictions: Columns) -> None:
    rest_no, stopped = _rest_number(connection, claim, result)
    done = _done_slice(claim.slice, result, claim.retry)
    _check_rows(claim, result)
    values: dict[str, Any] = {
        **fence(claim),
        **msgspec.structs.asdict(result.seconds),
        "served_s": result.seconds.served_s(),
        "rows": done.rows,
        "files": done.files,
        "size_bytes": done.size_bytes,
        "rows_ok": result.rows_ok,
        "rows_bad": result.rows_bad - (_rows_of(result) if claim.retry else 0),
        "rows_skipped": result.rows_skipped,
        "part": result.part,
        "part_etag": result.part_etag,
        "part_bytes": result.part_bytes,
    }
    found = connection.execute(_DONE, values).fetchone()
    if found is None:
        raise _Lost
    if result.rest is not None:
        _insert_rest(connection, claim, result, {"rest": rest_no, "state": 3 if stopped else 0}, found)
    if claim.retry and connection.execute(_TAKE_OVER, values).rowcount != _rows_of(result):
        raise CountMismatch(f"shard {claim.shard_no} of job {claim.job.id} was to try other rows again than it did")
    copy_bad_rows(connection, (claim.job.id, claim.shard_no), result.bad, claim.retry)
    copy_predictions(connection, predictions)
    connection.execute(_COUNT, values)


def _rest_number(connection: BoundedConnection, claim: Claim, result: ShardResult) -> tuple[int, bool]:
    """Return the number of the shard that goes on, and whether its job is stopped; locks the job, before any shard."""
    if result.rest is None:
        return -1, False
    row = connection.execute(_NEXT_SHARD, fence(claim)).fetchone()
    if row is None:
        raise _Lost
    return row[0], JobState(row[1]) in _STOPPED


def _insert_rest(
    connection: BoundedConnection,
    claim: Claim,
    result: ShardResult,
    shard: dict[str, int],
    found: tuple[Any, ...],
) -> None:
    assert result.rest is not None
    rows_seen, *suspect = found
    done = _rows_of(result)
    left = [max(0, position - done) for position in suspect if position is not None]
    still_suspect = bool(left) and left[1] > 0
    values = {
        **fence(claim),
        **msgspec.structs.asdict(result.rest),
        **shard,
        "retry": claim.retry,
        # Those deaths were of rows that are done by now, if it is known which they were.
        "deaths": claim.deaths if still_suspect or not left else 0,
        "suspect_from": left[0] if still_suspect else None,
        "suspect_to": left[1] if still_suspect else None,
        "rows_seen": max(0, rows_seen - done),
    }
    connection.execute(_INSERT_REST, values)
    if claim.retry:
        connection.execute(_HAND_ON, values)


def _rows_of(result: ShardResult) -> int:
    return result.rows_ok + result.rows_bad + result.rows_skipped


def _done_slice(whole: Slice, result: ShardResult, retry: int) -> Slice:
    """Return what of a slice is done: all but the rest, as long as its rows. A retry has gaps, and keeps its slice."""
    rest = result.rest
    if retry:
        return whole
    if rest is None:
        return msgspec.structs.replace(whole, rows=_rows_of(result))
    files = rest.file_no - whole.file_no + (1 if rest.row_start > 0 else 0)
    size_bytes = max(0, whole.size_bytes - rest.size_bytes)
    return msgspec.structs.replace(whole, rows=_rows_of(result), files=files, size_bytes=size_bytes)


def _check_rows(claim: Claim, result: ShardResult) -> None:
    """Raise CountMismatch when rows of the slice are missing, or some are too many."""
    wanted = len(claim.only) if claim.retry else claim.slice.rows
    found = _rows_of(result)
    if len(result.bad) != result.rows_bad:
        raise CountMismatch(f"{result.rows_bad} bad rows were counted, and {len(result.bad)} listed")
    if result.rest is not None or wanted < 0 or found == wanted:
        return
    raise CountMismatch(
        f"shard {claim.shard_no} of job {claim.job.id} has {found} rows where {wanted} were planned: its input is "
        "another one than when it was planned; run the command again with --restart"
    )
