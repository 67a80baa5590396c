"""Traffic of models between two times: requests, batches and where their time went."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.contracts.states import State
from headrace.results_store.schema import predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The requests of a model that ended in one state, in batches of one size.

    version: that answered. batch_rows: 0 for requests that no batch ran. queued_s, ran_s: sums over all requests, from
    submission to the start of their batch and from there to its end.
    """

    model: str
    version: str
    state: State
    batch_rows: int
    requests: int
    batches: int
    queued_s: float
    ran_s: float
    newest: dt.datetime


_table = predictions.c

_VERSION: Final = sa.func.coalesce(_table.served_version, _table.version)

_BATCH_ROWS: Final = sa.func.coalesce(_table.batch_rows, 0)


def _seconds(later: sa.ColumnElement[dt.datetime], earlier: sa.ColumnElement[dt.datetime]) -> sa.ColumnElement[float]:
    # Clocks of two machines: what was started before it was submitted has waited for no time.
    apart = sa.func.greatest(sa.func.extract("epoch", later - earlier), 0)
    return sa.cast(sa.func.coalesce(sa.func.sum(apart), 0), sa.Float)


def traffic_of(models: Collection[str], since: dt.datetime, until: dt.datetime) -> sa.Select[Any]:
    """Return the query for requests with since < finished_at ≤ until, both aware; rows of bulk jobs are left out."""
    return (
        sa.select(
            _table.model,
            _VERSION,
            _table.state,
            _BATCH_ROWS,
            sa.func.count(),
            sa.func.count(_table.batch_id.distinct()),
            _seconds(_table.started_at, _table.submitted_at),
            _seconds(_table.finished_at, _table.started_at),
            sa.func.max(_table.finished_at),
        )
        .where(
            _table.model == sa.any_(sa.bindparam("models", list(models), pg.ARRAY(sa.Text))),
            _table.finished_at > since,
            _table.finished_at <= until,
            _table.job_id.is_(None),
        )
        .group_by(_table.model, _VERSION, _table.state, _BATCH_ROWS)
    )


def traffic_in(row: sa.Row[Any]) -> Traffic:
    """Read a row of `traffic_of`."""
    values: tuple[Any, ...] = tuple(row)
    model, version, state, batch_rows, requests, batches, queued_s, ran_s, newest = values
    return Traffic(
        model=model,
        version=version,
        state=State(state),
        batch_rows=batch_rows,
        requests=requests,
        batches=batches,
        queued_s=queued_s,
        ran_s=ran_s,
        newest=newest,
    )
