"""The verdict over jobs: each ended as if nothing had happened, and nothing is left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from tests.chaos.jobs.inputs import Wanted, read_output

#: Of jobs that were restarted the earlier ones have no key any more, and were cancelled.
_LEFT = """
    SELECT j.state, count(*) FROM headrace_jobs j
    WHERE j.state <> 'succeeded' AND (j.key IS NOT NULL OR j.state <> 'cancelled') GROUP BY j.state
    UNION ALL
    SELECT 'shards in state ' || s.state, count(*)
    FROM headrace_job_shards s JOIN headrace_jobs j ON j.id = s.job_id
    WHERE s.state <> 2 AND (j.key IS NOT NULL OR s.state <> 3) GROUP BY s.state
"""

_STORED = "SELECT outputs FROM predictions WHERE job_id = %s"

_BAD = """
    SELECT f.uri, e.row FROM headrace_job_errors e JOIN headrace_job_files f USING (job_id, file_no) WHERE job_id = %s
"""


def judge_job(wanted: Wanted, output: Path) -> Iterator[str]:
    """Yield what is wrong with the output of a job that has ended."""
    if not (output / "_SUCCESS").exists():
        yield "it has no _SUCCESS"
        return
    good, bad, manifest = read_output(wanted, output)
    if missing := wanted.good - good:
        yield f"{missing.total()} rows are missing, {sorted(missing)[:3]} for one"
    if doubled := good - wanted.good:
        yield f"{doubled.total()} rows are too many, doubled or wrong, {sorted(doubled)[:3]} for one"
    if sorted(bad) != sorted(wanted.bad):
        yield f"bad rows are {sorted(set(bad) ^ set(wanted.bad))[:5]} other than wanted, or listed twice"
    counts = {"in": wanted.rows, "ok": wanted.good.total(), "bad": len(wanted.bad), "skipped": 0}
    if manifest["rows"] != counts:
        yield f"the manifest counts {manifest['rows']}, and there are {counts}"
    yield from _strays(manifest, output)


def judge_stored(wanted: Wanted, identity: str, database_url: str) -> Iterator[str]:
    """Yield what is wrong with the rows of a job in the store."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(_STORED, [identity]).fetchall()
        bad = sorted((Path(uri).name, row) for uri, row in connection.execute(_BAD, [identity]).fetchall())
    found = Counter(outputs["y"][0][0] for (outputs,) in rows)
    ys = Counter({y: count for (_, y), count in wanted.good.items()})
    if found != ys:
        yield f"{(ys - found).total()} rows are missing in the store, {(found - ys).total()} too many or wrong"
    if bad != sorted(wanted.bad):
        yield f"bad rows are {sorted(set(bad) ^ set(wanted.bad))[:5]} other than wanted"


def _strays(manifest: dict[str, Any], output: Path) -> Iterator[str]:
    named = {entry["name"] for entry in (*manifest["parts"], *manifest["errors"])}
    there = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    strays = {name for name in there - named - {"_SUCCESS", "_manifest.json"} if not Path(name).name.startswith(".")}
    if strays:
        yield f"objects that nobody names: {sorted(strays)[:5]}"
    if gone := named - there:
        yield f"objects that are named and not there: {sorted(gone)[:5]}"


def judge_ledger(database_url: str) -> Iterator[str]:
    """Yield what the ledger holds that has not ended."""
    with psycopg.connect(database_url) as connection:
        yield from (f"left in the ledger: {count} {what}" for what, count in connection.execute(_LEFT).fetchall())
